"""The previewer, as a call that answers or raises.

It works on one request at a time, in a process that starts with the first one and ends when it has had no request for a
while: previews come in bursts, and a start costs seconds. A request whose caller has gone or whose time is over takes
the process with it, and so may a hostile image or a plugin. The next request starts another process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from manyview_server.counted_noun import number_of
from manyview_server.errors import DeadlineExceeded, FailedPrecondition, ResourceExhausted, ServiceError, error_class
from manyview_server.link.frames import LinkClosed, LinkCorrupt
from manyview_server.messages.preview import PreviewDone, PreviewFailed, PreviewImages
from manyview_server.supervise.decode_watch import DecodeWatch, SlowDecode
from manyview_server.supervise.process import WORKER_COMMAND, Forks, WorkerProcess, describe_exit
from manyview_server.supervise.slow_images import SlowImages, content_id
from manyview_server.supervise.worker_call import WorkerCall
from manyview_server.system import awake_time

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewerLimits:
    """The requests that may wait for the previewer, and the time that it may take."""

    max_requests: int = 8
    most_s: float = 120.0
    """The limit for one request, including its wait for others, whatever its caller allows."""
    hello_s: float = 60.0
    """The limit from the start of the process to its first message."""
    decode_cpu_s: float = 10.0
    """The most CPU seconds to decode one image."""
    idle_s: float = 60.0
    """A process that has had no work for this time is ended."""
    exit_s: float = 5.0
    """The time that the process has to exit by itself."""


class PreviewerSupervisor:
    """Keeps at most one previewer. `preview` starts it if it does not run; `close` ends it."""

    def __init__(
        self,
        *,
        command: Sequence[str] = WORKER_COMMAND,
        forks: Forks | None = None,
        limits: PreviewerLimits | None = None,
        slow_images: SlowImages | None = None,
    ) -> None:
        self._limits = limits = limits or PreviewerLimits()
        self._worker = WorkerCall(
            "previewer", command, forks, hello_s=limits.hello_s, exit_s=limits.exit_s, retry_after_s=RETRY_AFTER_S
        )
        self._slow_images = slow_images or SlowImages()
        self._process: WorkerProcess | None = None
        self._turn = asyncio.Lock()
        self._num_requests = 0
        self._idle: asyncio.TimerHandle | None = None

    async def preview(self, make: Callable[[], Awaitable[PreviewImages]], time_left_s: float) -> PreviewDone:
        """Return the views of a request's images; `time_left_s` 0 means that the caller sets no limit.

        `make` makes the request when its turn has come, so that requests that wait hold no images. Its errors are
        raised.

        Raises:
            ResourceExhausted: PREVIEW_QUEUE_FULL.
            DeadlineExceeded: PREVIEW_DEADLINE.
            FailedPrecondition: PREVIEW_CRASHED, the process died of this very request.
            Unavailable: PREVIEWER_START, the process cannot start; DRAINING.
            ServiceError: the error that the previewer answers.
        """
        self._worker.check_open()
        if self._num_requests >= self._limits.max_requests:
            message = f"{number_of(self._num_requests, 'preview is', 'previews are')} already waiting"
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
        """End the process. Requests in progress and later ones fail with UNAVAILABLE DRAINING."""
        self._worker.close()
        if self._idle:
            self._idle.cancel()
        if self._process:
            await self._process.stop(self._limits.exit_s)
        await self._worker.finish()

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
        """Return the answer of the process, or the decodes because of which the process was killed."""
        if self._idle:
            self._idle.cancel()
        process = await self._running()
        watch = DecodeWatch(process.pid, process.notes, self._limits.decode_cpu_s)
        watching = asyncio.create_task(watch.wait())
        receiving = asyncio.create_task(_receive(process, request))
        try:
            await asyncio.wait([watching, receiving], return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                self._kill(process)
                return watching.result()
            answer = receiving.result()
        except (LinkClosed, LinkCorrupt) as error:
            raise await self._death(process, error) from error
        except BaseException:  # nobody waits for the answer any more, and the next request must not wait for it
            self._kill(process)
            raise
        finally:
            watching.cancel()
            receiving.cancel()
        self._idle = asyncio.get_running_loop().call_later(self._limits.idle_s, self._retire)
        return answer

    async def _running(self) -> WorkerProcess:
        """Return the process. Start it if it does not run, or has died while it was idle."""
        if self._process and not self._process.running:
            log.error("previewer ended", extra={"exit": describe_exit(await self._process.stop())})
            self._process = None
        if not self._process:
            self._process = await self._worker.start(num_threads=1)
        return self._process

    async def _death(self, process: WorkerProcess, error: Exception) -> ServiceError:
        """Return the error of a request whose process died."""
        self._process = None
        words = await self._worker.died(process, repr(error))
        if self._worker.closed:
            return self._worker.draining()
        message = f"the process that makes the views ended with {words}, because of one of these images or of a plugin"
        return FailedPrecondition("PREVIEW_CRASHED", message)

    def _kill(self, process: WorkerProcess) -> None:
        self._process = None
        self._worker.kill(process)

    def _retire(self) -> None:
        if self._process and not self._turn.locked():
            self._worker.retire(self._process)
            self._process = None


async def _receive(process: WorkerProcess, request: PreviewImages) -> PreviewDone | PreviewFailed:
    """Send a request, and return the answer. Raises LinkClosed and LinkCorrupt."""
    with suppress(LinkClosed):  # receiving then raises it too
        await process.link.send(request)
    answer = await process.link.receive()
    if not isinstance(answer, PreviewDone | PreviewFailed):
        raise LinkCorrupt(f"a previewer does not send {type(answer).__name__}")
    return answer
