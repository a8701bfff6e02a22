"""The embedder, as a call that answers or raises, whatever becomes of the process.

The process starts with the first request, and again after a death. Requests that it was working on when it died fail
with UNAVAILABLE and may be repeated; a request that kills it alone is refused from then on. An image that takes too
long to decode fails alone: the process is replaced, and the requests that it was working on are repeated without it.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import numpy as np

from manyview_server.counted_noun import number_of
from manyview_server.errors import DeadlineExceeded, FailedPrecondition, ResourceExhausted, ServiceError, Unavailable
from manyview_server.messages.embedding import EmbedDone, EmbedImages, EmbedRecipe, SetThreads, StartEmbedding
from manyview_server.store.images.shards import SNAPSHOT_DTYPE, image_id_of
from manyview_server.supervise.cores import CoreBudget
from manyview_server.supervise.embedders.crashing_requests import CrashingRequests
from manyview_server.supervise.embedders.embedder_process import EmbedderProcess
from manyview_server.supervise.process import WORKER_COMMAND, Forks
from manyview_server.supervise.restart_delay import RestartBackoff
from manyview_server.supervise.slow_images import SlowImages
from manyview_server.supervise.worker_call import WorkerCall
from manyview_server.system import open_files
from manyview_server.system.sized_work import run_sized

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1.0
MAX_RETRY_AFTER_S = 60.0
MAX_REPLACEMENTS = 8
"""A request is repeated after at most this many slow images, its own or other callers'."""
SMALLEST_TIME_LEFT_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderLimits:
    """The images that may wait for the embedder, and the time that it may take."""

    max_images: int = 4096
    max_bytes: int = 256 << 20
    hello_s: float = 300.0
    """The limit from the start of the process to its first message."""
    silence_s: float = 120.0
    """The limit for one task, such as a pass of the network or the loading of a model, and for the first sign of life
    after a request. It counts seconds for which the server was awake."""
    decode_cpu_s: float = 10.0
    """The most CPU seconds to decode one image."""
    exit_s: float = 5.0
    """The time that the process has to exit by itself."""


class _Replaced(Exception):
    """The process was replaced because of one image. The request must be repeated."""


class EmbedderSupervisor:
    """Keeps at most one embedder. `embed` starts it if it does not run; `close` ends it."""

    def __init__(
        self,
        budget: CoreBudget,
        device: str,
        *,
        command: Sequence[str] = WORKER_COMMAND,
        forks: Forks | None = None,
        limits: EmbedderLimits | None = None,
        slow_images: SlowImages | None = None,
    ) -> None:
        self._budget = budget
        self._device = device
        self._limits = limits = limits or EmbedderLimits()
        self._worker = WorkerCall(
            "embedder", command, forks, hello_s=limits.hello_s, exit_s=limits.exit_s, retry_after_s=RETRY_AFTER_S
        )
        self._backoff = RestartBackoff(RETRY_AFTER_S, MAX_RETRY_AFTER_S)
        self._running: EmbedderProcess | None = None
        self._starting: asyncio.Task[None] | None = None
        self._slow_images = slow_images or SlowImages()
        self._crashing = CrashingRequests()
        self._ids = itertools.count(1)
        self._queued_images = 0
        self._queued_bytes = 0
        budget.on_change(self._share_cores)

    @property
    def is_starting(self) -> bool:
        """Is the process starting right now?"""
        return self._starting is not None

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
            ServiceError: the error that the embedder answers, such as DATA_LOSS for a checkpoint.
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
                    num_bytes = sum(map(len, request.blobs))
                    fingerprint, image_ids = await run_sized(num_bytes, lambda: _fingerprint(request))
                    async with self._crashing.turn(fingerprint):
                        return await self._ask(request, fingerprint, image_ids, too_slow)
            except TimeoutError as error:
                raise DeadlineExceeded("EMBED_DEADLINE", f"not embedded within {time_left_s:g} seconds") from error

    async def close(self) -> None:
        """End the process. Requests in progress and later ones fail with UNAVAILABLE DRAINING."""
        self._worker.close()
        if self._starting:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        if running := self._running:
            running.requests.fail(self._worker.draining())
            await running.process.stop(self._limits.exit_s)
        await self._worker.finish()

    @contextmanager
    def _room(self, request: EmbedImages) -> Iterator[None]:
        """Hold room in the queue for the request."""
        self._worker.check_open()
        if request.dataset_dir:  # its caller waits for each answer, and it waits behind all others
            yield
            return
        num_images, num_bytes = len(request.blobs), sum(map(len, request.blobs))
        limits = self._limits
        if self._queued_images + num_images > limits.max_images or self._queued_bytes + num_bytes > limits.max_bytes:
            message = number_of(self._queued_images, "image is", "images are") + " already waiting to be embedded"
            raise ResourceExhausted("EMBED_QUEUE_FULL", message, retry_after_s=RETRY_AFTER_S)
        self._queued_images += num_images
        self._queued_bytes += num_bytes
        try:
            yield
        finally:
            self._queued_images -= num_images
            self._queued_bytes -= num_bytes

    async def _ask(
        self, request: EmbedImages, fingerprint: bytes, image_ids: tuple[int, ...], too_slow: Collection[int]
    ) -> EmbedDone:
        """Return the answer to a request. Ask again when the process was replaced because of a slow image."""
        if self._crashing.is_culprit(fingerprint):
            message = "the embedder died of these images twice: embed them in smaller batches to find out which"
            raise FailedPrecondition("EMBED_REQUEST_REFUSED", message)
        loop = asyncio.get_running_loop()
        start = loop.time()
        quarantined = set(request.quarantined)
        for _ in range(MAX_REPLACEMENTS):
            slow_rows = {row for row, image_id in enumerate(image_ids) if image_id in too_slow}
            slow_rows.update(self._slow_images.rows(image_ids))
            is_limited = request.time_left_s > 0
            attempt = replace(
                request,
                request_id=next(self._ids),
                time_left_s=max(SMALLEST_TIME_LEFT_S, start + request.time_left_s - loop.time()) if is_limited else 0.0,
                # Only those of this request: the whole list may be longer than a message.
                quarantined=tuple(sorted(quarantined.intersection(image_ids))),
                too_slow=tuple(sorted(slow_rows)),
            )
            with suppress(_Replaced):
                running = await self._process()
                done = await running.ask(attempt, fingerprint, image_ids)
                self._crashing.clear(fingerprint)
                return done
        raise _restarted(0.0)

    async def _process(self) -> EmbedderProcess:
        """Return the process, and start it if it does not run. A caller that gives up does not end the start."""
        self._worker.check_open()
        if self._running:
            return self._running
        if not self._starting:
            if (wait_s := self._backoff.left_s) > 0:
                raise _restarted(wait_s)
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._started)
        starting = self._starting
        await asyncio.wait([starting])
        if self._running:
            return self._running
        self._worker.check_open()
        if not starting.cancelled() and isinstance(error := starting.exception(), ResourceExhausted):
            raise open_files.too_many(error.__cause__)
        raise _restarted(self._backoff.left_s)

    async def _start(self) -> None:
        def first_message() -> StartEmbedding:
            return StartEmbedding(device=self._device, num_threads=self._budget.embedder_threads)

        process = await self._worker.start(self._budget.embedder_threads, first_message)
        self._running = EmbedderProcess(
            process,
            self._worker,
            silence_s=self._limits.silence_s,
            decode_cpu_s=self._limits.decode_cpu_s,
            slow_images=self._slow_images,
            on_answer=self._backoff.reset,
        )
        self._worker.spawn(self._serve(self._running))
        self._worker.spawn(self._running.watch())

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting = None
        if not task.cancelled() and (error := task.exception()):
            if not isinstance(error, ServiceError):  # the others are logged already
                log.error("embedder cannot be started", exc_info=error)
            self._backoff.count_death()

    async def _serve(self, running: EmbedderProcess) -> None:
        """Hand out answers until the process is gone. Then fail the requests that it was working on."""
        why = await running.listen()
        self._running = None
        if running.was_replaced or self._worker.closed:
            running.requests.fail(_Replaced())
            await running.process.stop(self._limits.exit_s)
            return
        self._crashing.record_death(running.suspects())
        self._backoff.count_death()
        running.requests.fail(_restarted(self._backoff.left_s))
        await self._worker.died(running.process, why)

    def _share_cores(self) -> None:
        if self._running:
            self._worker.spawn(self._running.send(SetThreads(num_threads=self._budget.embedder_threads)))


def _fingerprint(request: EmbedImages) -> tuple[bytes, tuple[int, ...]]:
    """Return a digest of the images and their model, and the id of each image."""
    model = request.recipe.model
    digest = hashlib.sha256(f"{model.name} {model.output}".encode())
    image_ids = []
    for blob in request.blobs:
        content = hashlib.sha256(blob).digest()
        digest.update(content)
        image_ids.append(image_id_of(content))
    if request.dataset_dir:
        image_ids = np.frombuffer(b"".join(request.blobs), SNAPSHOT_DTYPE)["image_id"].tolist()
    return digest.digest(), tuple(image_ids)


def _restarted(wait_s: float) -> Unavailable:
    text = "the embedder is being restarted"
    return Unavailable("EMBEDDER_RESTARTED", text, retry_after_s=max(wait_s, RETRY_AFTER_S))
