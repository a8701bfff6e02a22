"""The decoded images of a job: each is decoded when it is needed, and kept while there is room.

Shapes: N images of the job, B images of a batch, S pixels on a side of a decoded image.

Every image is resampled to S x S whatever its shape. Its true size is returned beside it: crops are drawn in the true
geometry and mapped onto the square. The result does not depend on which images are kept, nor on the order of decoding.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyview_server.worker.job_images.decode_threads import DecodeThreads
from manyview_server.worker.job_images.findings import Finding, Findings, Unreadable
from manyview_server.worker.job_images.image_decoder import ImageDecoder
from manyview_server.worker.job_images.image_index import ImageIndex
from manyview_server.worker.job_images.pixel_store import PixelStore, Rows

CHUNK_IMAGES = 4
"""The images that a thread decodes per task."""
AHEAD_IMAGES = 64
"""Batches are decoded ahead until they hold this many images, so that small ones keep all threads busy too."""
AHEAD_BYTES = 256 << 20
"""The most memory of the batches that are decoded ahead. One batch is decoded ahead whatever its size is."""
LOOK_S = 0.2
"""The pause between two looks at whether the job must stop, while images are awaited."""


class DecodingStopped(Exception):
    """The job must stop, while images were awaited."""


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Some images."""

    rows: Tensor
    """(B,) int64, as are the next two on the CPU."""
    images: Tensor
    """(B, 3, S, S) uint8, on the device. An unreadable image is zero."""
    sizes: Tensor
    """(B, 2) int64, height and width before resampling; for an unreadable image, what its header says."""
    readable: Tensor
    """(B,) bool."""


@dataclass(frozen=True, kw_only=True)
class PendingBatch:
    """A batch whose images are being decoded."""

    rows: Rows
    at: Rows
    """The places in the batch of the images that are decoded for it; the others are kept, or unreadable."""
    on_host: Tensor | None = None
    """(B, 3, S, S) uint8 in memory, into which threads decode; None if all images are kept."""
    tasks: tuple[Future[list[Finding]], ...] = ()

    def cancel(self) -> None:
        """Drop the tasks that no thread has begun."""
        for task in self.tasks:
            task.cancel()


class DecodedImages:
    """The images of `index`, which `grow` replaces. Any thread may call the methods; `close` ends the threads."""

    def __init__(
        self,
        index: ImageIndex,
        decoder: ImageDecoder,
        store: PixelStore,
        *,
        num_threads: int,
        stopped: Callable[[], bool] = lambda: False,
        on_unreadable: Callable[[Unreadable], None] = lambda _: None,
        on_wait: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """
        Args:
            num_threads: the threads that decode.
            stopped: once it returns True, nothing is awaited any more.
            on_unreadable: called once for each unreadable image, when it is found.
            on_wait: called while somebody waits for a batch, with the images of it that are decoded, and with all that
                must be decoded for it.
        """
        self.index = index
        self.store = store
        self.findings = Findings(index.rows, on_unreadable)
        self._decoder = decoder
        self._threads = DecodeThreads(num_threads)
        self._stopped = stopped
        self._on_wait = on_wait
        self._lock = threading.Lock()
        store.grow(len(index))

    @property
    def size(self) -> int:
        """S."""
        return self.store.size

    def grow(self, index: ImageIndex) -> None:
        """Replace the index by a longer one that starts with the same rows."""
        with self._lock:
            self.index = index
            self.findings.grow(index.rows)
            self.store.grow(len(index))

    def close(self) -> None:
        """End the threads. Call it when nobody gathers any more."""
        self._threads.close()
        self._decoder.close()

    def are_unreadable(self, rows: Tensor) -> bool:
        """Is it known that none of `rows` (B,) can be read?"""
        with self._lock:
            return bool(self.findings.is_unreadable[rows.numpy()].all())

    def gather(self, rows: Tensor) -> Gathered:
        """Return the images of `rows` (B,) int64, in any order. Raises as `batches` does."""
        (found,) = self.batches([rows])
        return found

    def batches(self, wanted: Iterable[Tensor]) -> Generator[Gathered, None, None]:
        """Yield the images of each element of `wanted`, (B,) rows. Close the iterator after use.

        While the caller works with one batch, threads decode the next ones.

        Raises:
            DecodingStopped: the job must stop.
            Exception: whatever a thread raised, apart from errors that make an image unreadable.
        """
        coming = (rows.numpy() for rows in wanted)
        pending: deque[PendingBatch] = deque()
        try:
            while True:
                self._plan(coming, pending)
                if not pending:
                    return
                found = self._await(pending[0])
                yield self._gathered(pending.popleft(), found)
        finally:
            for batch in pending:
                batch.cancel()

    def _plan(self, coming: Iterator[Rows], pending: deque[PendingBatch]) -> None:
        """Begin to decode the next batches of `coming`, until enough are pending."""
        while len(pending) < self._num_pending(pending):
            rows = next(coming, None)
            if rows is None:
                return
            pending.append(self._begin(rows))

    def _num_pending(self, pending: deque[PendingBatch]) -> int:
        """Return how many batches may be pending: the one that is needed now, and those that are decoded ahead."""
        if not pending:
            return 1
        num_images = max(1, len(pending[0].rows))
        most = AHEAD_BYTES // (num_images * self.store.image_bytes)
        return 1 + max(1, min(most, max(2, math.ceil(AHEAD_IMAGES / num_images))))

    def _begin(self, rows: Rows) -> PendingBatch:
        """Let threads decode the images of a batch that are not kept."""
        with self._lock:
            places = self.index.rows
            kept = self.store.is_kept(rows)
            at = np.flatnonzero(~kept & ~self.findings.is_unreadable[rows])
        if kept.all():
            return PendingBatch(rows=rows, at=at)
        shape = (len(rows), 3, self.size, self.size)
        pinned = self.store.device.type == "cuda"
        on_host = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned, memory_format=self.store.layout)
        pixels = on_host.numpy()

        def decode(chunk: Rows) -> list[Finding]:
            return [self._decoder.decode(int(rows[place]), places[rows[place]], pixels[place]) for place in chunk]

        self._decoder.read_ahead(places[rows[at]])
        chunks = np.split(at, range(CHUNK_IMAGES, len(at), CHUNK_IMAGES))
        tasks = tuple(self._threads.submit(decode, chunk) for chunk in chunks)
        return PendingBatch(rows=rows, at=at, on_host=on_host, tasks=tasks)

    def _await(self, batch: PendingBatch) -> list[Finding]:
        """Return what was found about the images of a batch, once all are decoded."""
        left: set[Future[list[Finding]]] = set(batch.tasks)
        num_done = 0
        while left:
            done, left = wait(left, LOOK_S, FIRST_COMPLETED)
            num_done += sum(len(task.result()) for task in done)
            self._on_wait(num_done, len(batch.at))
            if left and self._stopped():
                raise DecodingStopped
        return [finding for task in batch.tasks for finding in task.result()]

    def _gathered(self, batch: PendingBatch, found: list[Finding]) -> Gathered:
        with self._lock:
            for finding in found:
                self.findings.add(finding)
            readable = ~self.findings.is_unreadable[batch.rows]
            return Gathered(
                rows=torch.from_numpy(batch.rows),
                images=self._images(batch, readable),
                sizes=torch.from_numpy(self.findings.sizes[batch.rows].astype(np.int64)),
                readable=torch.from_numpy(readable),
            )

    def _images(self, batch: PendingBatch, readable: npt.NDArray[np.bool_]) -> Tensor:
        """Return the pixels of a batch whose images are decoded, and keep them while there is room."""
        rows, at, on_host = batch.rows, batch.at, batch.on_host
        if on_host is None:
            return self.store.take(rows)
        on_host.numpy()[~readable] = 0
        images = on_host.to(self.store.device, non_blocking=True)
        was_kept = readable.copy()
        was_kept[at] = False
        if was_kept.any():
            places = torch.from_numpy(np.flatnonzero(was_kept)).to(self.store.device, non_blocking=True)
            images.index_copy_(0, places, self.store.take(rows[was_kept]))
        decoded = at[readable[at]]
        self.store.keep(rows[decoded], decoded, images, on_host)
        return images
