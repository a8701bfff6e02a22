"""The embedder process, as the front sees it: a call that answers or raises, whatever becomes of the process.

The process starts with the first request, and again after a death. Requests that it was working on when it died fail
with UNAVAILABLE and may be repeated; a request that kills it alone is refused from then on. An image that takes too
long to decode fails alone: the process is replaced, and the requests that it was working on are repeated without it.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
from collections.abc import Collection, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from manyview_server.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    ResourceExhausted,
    Unavailable,
    error_class,
)
from manyview_server.link.frames import LinkClosed, LinkCorrupt
from manyview_server.messages.embedding import (
    CancelEmbed,
    EmbedDone,
    EmbedFailed,
    EmbedImages,
    EmbedRecipe,
    SetThreads,
    StartEmbedding,
)
from manyview_server.messages.message import Message
from manyview_server.store.images.shards import SNAPSHOT_DTYPE, image_id_of
from manyview_server.supervise.cores import CoreBudget
from manyview_server.supervise.decode_watch import LOOK_S, DecodeWatch, SlowDecode, TaskWatch
from manyview_server.supervise.embedders.crashing_requests import Quarantine
from manyview_server.supervise.embedders.work_in_hand import Work, WorkInHand
from manyview_server.supervise.process import WORKER_COMMAND, WorkerProcess, describe_exit
from manyview_server.supervise.restart_delay import restart_delay_s
from manyview_server.supervise.slow_images import SlowImages
from manyview_server.system import awake_time, open_files

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1.0
MAX_RETRY_AFTER_S = 60.0
MAX_REPLACEMENTS = 8
"""A request is repeated after at most this many slow images, its own or other callers'."""
SMALLEST_TIME_LEFT_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderLimits:
    """What may wait for the embedder, and how long it is waited for."""

    max_images: int = 4096
    max_bytes: int = 256 << 20
    # From the start of the process to its first message.
    hello_s: float = 300.0
    # The limit for one task, such as a pass of the network or the loading of a model, and for the first sign of life
    # after a request. It counts seconds for which the server was awake.
    silence_s: float = 120.0
    # The most CPU seconds to decode one image.
    decode_cpu_s: float = 10.0
    exit_s: float = 5.0


class _Replaced(Exception):
    """The process was replaced because of one image. The request must be repeated."""


class EmbedderSupervisor:
    """Keeps one embedder. `embed` starts it where there is none; `close` ends it."""

    def __init__(
        self,
        budget: CoreBudget,
        device: str,
        *,
        command: Sequence[str] = WORKER_COMMAND,
        limits: EmbedderLimits | None = None,
        slow_images: SlowImages | None = None,
    ) -> None:
        self._budget = budget
        self._device = device
        self._command = command
        self._limits = limits or EmbedderLimits()
        self._process: WorkerProcess | None = None
        self._start_task: asyncio.Task[None] | None = None
        self._asked_at: float | None = None  # when it was last asked without a sign of life since then
        self._slow_images = slow_images or SlowImages()
        self._tasks: set[asyncio.Task[None]] = set()
        self._work = WorkInHand()
        # Why `_watch` killed the process: because of a slow image, or because of these requests.
        self._replaced = False
        self._blamed: Iterable[bytes] | None = None
        self._ids = itertools.count(1)
        self._quarantine = Quarantine()
        self._images = 0
        self._bytes = 0
        self._deaths = 0  # since the last answer
        self._not_before = 0.0
        self._closed = False
        budget.on_change(self._share_cores)

    @property
    def queued_images(self) -> int:
        """Images of all requests that are not answered yet."""
        return self._images

    async def embed(
        self,
        recipe: EmbedRecipe,
        images: Sequence[bytes],
        *,
        time_left_s: float = 0.0,
        dataset_dir: str = "",
        quarantined: Sequence[int] = (),
        too_slow: Collection[int] = (),
    ) -> EmbedDone:
        """Embed encoded images; `time_left_s` 0 means no limit.

        With `dataset_dir`, `images` holds rows of that data set's snapshot, and the worker reads the images from there.
        It does not decode the stored images whose ids are `quarantined`. Images whose ids are in `too_slow`, or that
        took too long to decode before, fail with DECODE_TOO_SLOW.

        Raises:
            ResourceExhausted: EMBED_QUEUE_FULL, too many images are waiting.
            Unavailable: EMBEDDER_RESTARTED, the process died or cannot start; DRAINING.
            FailedPrecondition: EMBED_REQUEST_REFUSED, the process died of these very images.
            DeadlineExceeded: EMBED_DEADLINE.
            ServiceError: what the embedder answers, such as DATA_LOSS for a checkpoint.
        """
        request = EmbedImages(
            request_id=next(self._ids),
            recipe=recipe,
            time_left_s=time_left_s,
            dataset_dir=dataset_dir,
            quarantined=tuple(quarantined),
            blobs=tuple(images),
        )
        with self._room(request):
            try:
                async with asyncio.timeout(time_left_s or None):
                    fingerprint, image_ids = await asyncio.to_thread(_fingerprint, request)
                    async with self._quarantine.turn(fingerprint):
                        return await self._ask(request, fingerprint, image_ids, too_slow)
            except TimeoutError as error:
                raise DeadlineExceeded("EMBED_DEADLINE", f"not embedded within {time_left_s:g} seconds") from error

    async def close(self) -> None:
        """End the process. Requests in work and later ones fail with UNAVAILABLE DRAINING."""
        self._closed = True
        self._work.fail(_draining())
        if self._start_task:
            self._start_task.cancel()
            await asyncio.wait([self._start_task])
        if self._process:
            await self._process.stop(self._limits.exit_s)
        if self._tasks:
            await asyncio.wait(self._tasks)

    @contextmanager
    def _room(self, request: EmbedImages) -> Iterator[None]:
        """Room in the queue for the request."""
        if self._closed:
            raise _draining()
        if request.dataset_dir:  # whoever asks for these waits for each answer, and they wait behind all others
            yield
            return
        num_images, num_bytes = len(request.blobs), sum(map(len, request.blobs))
        if self._images + num_images > self._limits.max_images or self._bytes + num_bytes > self._limits.max_bytes:
            message = f"{self._images} images wait to be embedded already"
            raise ResourceExhausted("EMBED_QUEUE_FULL", message, retry_after_s=RETRY_AFTER_S)
        self._images += num_images
        self._bytes += num_bytes
        try:
            yield
        finally:
            self._images -= num_images
            self._bytes -= num_bytes

    async def _ask(
        self, request: EmbedImages, fingerprint: bytes, image_ids: tuple[int, ...], too_slow: Collection[int]
    ) -> EmbedDone:
        if self._quarantine.is_culprit(fingerprint):
            message = "the embedder died of these images twice: embed them in smaller batches to find out which"
            raise FailedPrecondition("EMBED_REQUEST_REFUSED", message)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        quarantined = set(request.quarantined)
        for _ in range(MAX_REPLACEMENTS):
            slow_rows = {row for row, image_id in enumerate(image_ids) if image_id in too_slow}
            slow_rows.update(self._slow_images.rows(image_ids))
            limited = request.time_left_s > 0
            attempt = replace(
                request,
                request_id=next(self._ids),
                time_left_s=max(SMALLEST_TIME_LEFT_S, begin + request.time_left_s - loop.time()) if limited else 0.0,
                # Only those of this request: the whole list may be longer than a message.
                quarantined=tuple(sorted(quarantined.intersection(image_ids))),
                too_slow=tuple(sorted(slow_rows)),
            )
            with suppress(_Replaced):
                done = await self._answer_of(attempt, fingerprint, image_ids)
                self._quarantine.acquit(fingerprint)
                return done
        raise _restarted(0.0)

    async def _answer_of(self, request: EmbedImages, fingerprint: bytes, image_ids: tuple[int, ...]) -> EmbedDone:
        process = await self._running()
        if self._asked_at is None:
            self._asked_at = awake_time.now()
        work = Work(request.request_id, fingerprint, image_ids, asyncio.get_running_loop().create_future())
        self._work.add(work)
        try:
            with suppress(LinkClosed):  # then the reader sees the end too, and fails the waiter
                await process.link.send(request)
            return await work.answer
        except asyncio.CancelledError:
            self._spawn(_tell(process, CancelEmbed(request_id=request.request_id)))
            raise
        finally:
            self._work.leave(work)

    async def _running(self) -> WorkerProcess:
        """The process; started where there is none. The start goes on when a caller gives up."""
        if self._closed:
            raise _draining()
        if self._process:
            return self._process
        if not self._start_task:
            wait_s = self._not_before - asyncio.get_running_loop().time()
            if wait_s > 0:
                raise _restarted(wait_s)
            self._start_task = asyncio.create_task(self._start())
            self._start_task.add_done_callback(self._started)
        starting = self._start_task
        await asyncio.wait([starting])
        if not self._process:
            if not starting.cancelled() and open_files.are_lacking(error := starting.exception()):
                raise open_files.too_many(error)
            raise _draining() if self._closed else _restarted(self._not_before - asyncio.get_running_loop().time())
        return self._process

    async def _start(self) -> None:
        process = None
        try:
            threads = self._budget.embedder_threads
            process = await WorkerProcess.start("embedder", num_threads=threads, command=self._command)
            async with awake_time.timeout(self._limits.hello_s):
                await process.link.receive()
                num_threads = self._budget.embedder_threads
                await process.link.send(StartEmbedding(device=self._device, num_threads=num_threads))
        except (OSError, TimeoutError, LinkClosed, LinkCorrupt) as error:
            words = describe_exit(await process.stop()) if process else ""
            if open_files.are_lacking(error):
                raise
            log.error(
                "embedder cannot be started",
                extra={"error": repr(error), "exit": words, "stderr": process.stderr_tail if process else ""},
            )
            self._died()
        except asyncio.CancelledError:
            if process:
                await process.stop()
            raise
        else:
            self._process = process
            self._spawn(self._read(process))
            self._spawn(self._watch(process))

    def _started(self, task: asyncio.Task[None]) -> None:
        self._start_task = None
        if not task.cancelled() and (error := task.exception()):
            log.error("embedder cannot be started", exc_info=error)
            self._died()

    async def _read(self, process: WorkerProcess) -> None:
        """Hand out answers until the process is gone."""
        why = ""
        try:
            while True:
                self._answer(await process.link.receive())
        except LinkClosed:
            why = "it closed its link"
        except Exception as error:  # whatever a broken process sends, its callers are to be told
            why = repr(error)
            process.kill()
        self._process = None
        self._asked_at = None
        replaced, blamed = self._replaced, self._blamed
        self._replaced, self._blamed = False, None
        if not self._closed and replaced:
            self._work.fail(_Replaced())
        elif not self._closed:
            self._quarantine.blame(self._work.suspects(process.notes.read()) if blamed is None else blamed)
            self._died()
            self._work.fail(_restarted(self._not_before - asyncio.get_running_loop().time()))
        self._work.process_ended()
        exit_words = describe_exit(await process.stop(self._limits.exit_s))
        if not self._closed and not replaced:
            log.error("embedder died", extra={"exit": exit_words, "why": why, "stderr": process.stderr_tail})

    async def _watch(self, process: WorkerProcess) -> None:
        """Kill the process when an image, another task, or its first sign of life takes too long.

        Only the work of the process counts, not who waits for it: callers come and go while a decoder is stuck.
        """
        decodes = DecodeWatch(process.pid, process.notes, self._limits.decode_cpu_s)
        tasks = TaskWatch(process.notes, self._limits.silence_s)
        while process.running:
            with suppress(TimeoutError):
                async with awake_time.timeout(min(LOOK_S, self._limits.silence_s / 8)):
                    await process.wait()
            if not process.running or self._process is not process:
                return
            if slow := decodes.look():
                self._condemn(process, slow)
                return
            overdue = tasks.look()
            quiet_s = awake_time.now() - max(self._asked_at, tasks.last_change) if self._asked_at is not None else 0.0
            is_silent = quiet_s > self._limits.silence_s
            if overdue or is_silent:
                log.error("embedder is stuck", extra={"requests": len(self._work.waiting)})
                self._blamed = self._work.suspects(overdue) if overdue else ()
                process.kill()
                return

    def _condemn(self, process: WorkerProcess, decodes: Iterable[SlowDecode]) -> None:
        """Replace the process, and refuse these images from now on. No other image is refused for it."""
        for slow in decodes:
            image_id = self._work.image_of(slow.note)
            if image_id is not None:
                self._slow_images.add(image_id)
            known = {"image": "unknown" if image_id is None else f"{image_id:016x}", "request": slow.note.request}
            log.error("an image takes the embedder too long to decode", extra={**known, "cpu_s": round(slow.cpu_s, 1)})
        self._replaced = True
        process.kill()

    def _answer(self, message: Message) -> None:
        if not isinstance(message, EmbedDone | EmbedFailed):
            raise LinkCorrupt(f"{type(message).__name__} is nothing that an embedder sends")
        self._asked_at = awake_time.now() if self._work.waiting.keys() - {message.request_id} else None
        if not (isinstance(message, EmbedFailed) and message.code == "CANCELLED"):
            self._deaths = 0
        work = self._work.waiting.get(message.request_id)
        if work is None or work.answer.done():
            return
        if isinstance(message, EmbedDone):
            work.answer.set_result(message)
        else:
            work.answer.set_exception(error_class(message.code)(message.reason, message.message))

    def _died(self) -> None:
        """Count a death. The first restart comes at once, each further one without an answer between later."""
        self._deaths += 1
        delay_s = restart_delay_s(self._deaths - 1, RETRY_AFTER_S, MAX_RETRY_AFTER_S) if self._deaths > 1 else 0.0
        self._not_before = asyncio.get_running_loop().time() + delay_s

    def _share_cores(self) -> None:
        if self._process:
            self._spawn(_tell(self._process, SetThreads(num_threads=self._budget.embedder_threads)))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _tell(process: WorkerProcess, message: Message) -> None:
    with suppress(LinkClosed):
        await process.link.send(message)


def _fingerprint(request: EmbedImages) -> tuple[bytes, tuple[int, ...]]:
    """Return a digest of what is embedded with what, and the id of each image."""
    digest = hashlib.sha256(f"{request.recipe.model.name} {request.recipe.model.output}".encode())
    image_ids = []
    for blob in request.blobs:
        content = hashlib.sha256(blob).digest()
        digest.update(content)
        image_ids.append(image_id_of(content))
    if request.dataset_dir:
        image_ids = np.frombuffer(b"".join(request.blobs), SNAPSHOT_DTYPE)["image_id"].tolist()
    return digest.digest(), tuple(image_ids)


def _draining() -> Unavailable:
    return Unavailable("DRAINING", "the server is stopping", retry_after_s=RETRY_AFTER_S)


def _restarted(wait_s: float) -> Unavailable:
    return Unavailable("EMBEDDER_RESTARTED", "the embedder is restarted", retry_after_s=max(wait_s, RETRY_AFTER_S))
