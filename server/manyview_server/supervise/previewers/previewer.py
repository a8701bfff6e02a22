"""The previewer process, as the front sees it: a call that answers or raises.

One request at a time, in a process that starts with the first one and ends when there was none for a while: previews
come in bursts, and starting costs seconds. A request whose caller has gone or whose time is over takes the process with
it, and so may a hostile image or a plugin: the next request starts another one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from manyview_server.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    ResourceExhausted,
    ServiceError,
    Unavailable,
    error_class,
)
from manyview_server.link.frames import LinkClosed, LinkCorrupt
from manyview_server.messages.preview import PreviewDone, PreviewFailed, PreviewImages
from manyview_server.supervise.decode_watch import DecodeWatch, SlowDecode
from manyview_server.supervise.process import WORKER_COMMAND, WorkerProcess, describe_exit
from manyview_server.supervise.slow_images import SlowImages, content_id
from manyview_server.system import awake_time, open_files

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewerLimits:
    """How many may wait for the previewer, and for how long."""

    max_requests: int = 8
    # For one request, its wait for others included, whatever its caller allows.
    most_s: float = 120.0
    # From the start of the process to its first message.
    hello_s: float = 60.0
    # The most CPU seconds to decode one image.
    decode_cpu_s: float = 10.0
    idle_s: float = 60.0
    exit_s: float = 5.0


class PreviewerSupervisor:
    """Keeps at most one previewer. `preview` starts it where there is none; `close` ends it."""

    def __init__(
        self,
        *,
        command: Sequence[str] = WORKER_COMMAND,
        limits: PreviewerLimits | None = None,
        slow_images: SlowImages | None = None,
    ) -> None:
        self._command = command
        self._limits = limits or PreviewerLimits()
        self._slow_images = slow_images or SlowImages()
        self._process: WorkerProcess | None = None
        self._turn = asyncio.Lock()
        self._num_requests = 0
        self._idle: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def preview(self, make: Callable[[], Awaitable[PreviewImages]], time_left_s: float) -> PreviewDone:
        """The views of a request's images; `time_left_s` 0 for no limit of the caller's.

        `make` gives the request, and what it raises is raised: images are read when their turn has come, so that those
        that wait hold none.

        Raises:
            ResourceExhausted: PREVIEW_QUEUE_FULL.
            DeadlineExceeded: PREVIEW_DEADLINE.
            FailedPrecondition: PREVIEW_CRASHED, the process died of this very request.
            Unavailable: PREVIEWER_START, the process cannot start; DRAINING.
            ServiceError: what the previewer answers.
        """
        if self._closed:
            raise _draining()
        if self._num_requests >= self._limits.max_requests:
            message = f"{self._num_requests} previews wait already"
            raise ResourceExhausted("PREVIEW_QUEUE_FULL", message, retry_after_s=RETRY_AFTER_S)
        self._num_requests += 1
        limit_s = min(time_left_s or self._limits.most_s, self._limits.most_s)
        try:
            # The caller's deadline counts all time; the server's own limit counts only the time for which it was awake.
            async with asyncio.timeout(time_left_s or None), awake_time.timeout(self._limits.most_s), self._turn:
                return await self._ask(await make())
        except TimeoutError as error:
            raise DeadlineExceeded("PREVIEW_DEADLINE", f"not previewed within {limit_s:g} seconds") from error
        finally:
            self._num_requests -= 1

    async def close(self) -> None:
        """End the process. Requests in work and later ones fail with UNAVAILABLE DRAINING."""
        self._closed = True
        if self._idle:
            self._idle.cancel()
        if self._process:
            await self._process.stop(self._limits.exit_s)
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _ask(self, request: PreviewImages) -> PreviewDone:
        """Answer one request. If an image takes too long to decode, the process is replaced and the image has no
        views."""
        image_ids = await asyncio.to_thread(lambda: [content_id(blob) for blob in request.blobs])
        for _ in range(len(image_ids) + 1):
            too_slow = self._slow_images.rows(image_ids)
            answer = await self._answer(replace(request, too_slow=too_slow))
            if isinstance(answer, PreviewDone):
                return answer
            if isinstance(answer, PreviewFailed):
                raise error_class(answer.code)(answer.reason, answer.message)
            for slow in answer:
                image_id = image_ids[slow.note.item]
                self._slow_images.add(image_id)
                known = {"image": f"{image_id:016x}", "cpu_s": round(slow.cpu_s, 1)}
                log.error("an image takes the previewer too long to decode", extra=known)
        raise AssertionError("each image can be slow only once")

    async def _answer(self, request: PreviewImages) -> PreviewDone | PreviewFailed | tuple[SlowDecode, ...]:
        """Return the answer of the process, or the decodes for which the process was ended."""
        if self._idle:
            self._idle.cancel()
        process = await self._running()
        watch = DecodeWatch(process.pid, process.notes, self._limits.decode_cpu_s)
        watching = asyncio.create_task(watch.wait())
        receiving = asyncio.create_task(_answer_of(process, request))
        try:
            await asyncio.wait([watching, receiving], return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                self._give_up(process)
                return watching.result()
            answer = receiving.result()
        except (LinkClosed, LinkCorrupt) as error:
            raise await self._died(process, error) from error
        except BaseException:  # nobody waits for the answer any more, and the next request is not to wait for it
            self._give_up(process)
            raise
        finally:
            watching.cancel()
            receiving.cancel()
        self._idle = asyncio.get_running_loop().call_later(self._limits.idle_s, self._rest)
        return answer

    def _give_up(self, process: WorkerProcess) -> None:
        self._process = None
        process.kill()
        self._spawn(process.stop())

    async def _running(self) -> WorkerProcess:
        """The process; started where there is none, or where it has ended while nobody asked."""
        if self._process and not self._process.running:
            log.error("previewer ended", extra={"exit": describe_exit(await self._process.stop())})
            self._process = None
        if not self._process:
            self._process = await self._start()
        return self._process

    async def _start(self) -> WorkerProcess:
        if self._closed:
            raise _draining()
        process = None
        try:
            process = await WorkerProcess.start("previewer", num_threads=1, command=self._command)
            async with awake_time.timeout(self._limits.hello_s):
                await process.link.receive()
        except (OSError, TimeoutError, LinkClosed, LinkCorrupt) as error:
            words = describe_exit(await process.stop()) if process else ""
            stderr = process.stderr_tail if process else ""
            if open_files.are_lacking(error):
                raise open_files.too_many(error) from error
            log.error("previewer cannot be started", extra={"error": repr(error), "exit": words, "stderr": stderr})
            raise Unavailable(
                "PREVIEWER_START", "the previewer cannot be started", retry_after_s=RETRY_AFTER_S
            ) from error
        except asyncio.CancelledError:
            if process:
                self._spawn(process.stop())
            raise
        return process

    async def _died(self, process: WorkerProcess, error: Exception) -> ServiceError:
        self._process = None
        words = describe_exit(await process.stop(self._limits.exit_s))
        if self._closed:
            return _draining()
        log.error("previewer died", extra={"exit": words, "why": repr(error), "stderr": process.stderr_tail})
        message = f"the process that makes the views ended with {words}: of one of these images, or of a plugin"
        return FailedPrecondition("PREVIEW_CRASHED", message)

    def _rest(self) -> None:
        if self._process and not self._turn.locked():
            self._spawn(self._process.stop(self._limits.exit_s))
            self._process = None

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _answer_of(process: WorkerProcess, request: PreviewImages) -> PreviewDone | PreviewFailed:
    with suppress(LinkClosed):  # then receiving says so too
        await process.link.send(request)
    answer = await process.link.receive()
    if not isinstance(answer, PreviewDone | PreviewFailed):
        raise LinkCorrupt(f"{type(answer).__name__} is not an answer of a previewer")
    return answer


def _draining() -> Unavailable:
    return Unavailable("DRAINING", "the server is stopping", retry_after_s=RETRY_AFTER_S)
