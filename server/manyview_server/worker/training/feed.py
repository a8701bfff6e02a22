"""From the decoded cache to batches: who is trained on, and in which order.

Shapes: N images of the cache, B batch, S pixels on a side of the cache.

The order is a pure function of (seed, epoch, image ids), so a resumed job goes on with the very batch that came next.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyview_server.worker.images.cache import ImageCache

PREFETCH_BATCHES = 2


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The images of a step."""

    epoch: int
    images: Tensor
    """(B, 3, S, S) uint8, on the device."""
    sizes: Tensor
    """(B, 2) int64, height and width; on the CPU, where view parameters are drawn."""
    image_ids: Tensor
    """(B,) int64, on the CPU."""
    labels: Tensor
    """(B,) int64, -1 where there is none; on the CPU."""


def epoch_order(seed: int, epoch: int, image_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(N,) the rows in the order of an epoch: sorted by a hash of (seed, epoch, image id)."""
    state = _mix(np.uint64(seed) + np.uint64(1))
    state = _mix(state ^ np.uint64(epoch))
    return np.argsort(_mix(image_ids.astype(np.uint64) ^ state), kind="stable")


class Feed:
    """Batches of the `rows` of a cache, epoch after epoch, the incomplete last batch of each left out."""

    def __init__(
        self,
        cache: ImageCache,
        rows: Tensor,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        first_step: int = 0,
        first_epoch: int = 0,
    ) -> None:
        """
        Args:
            rows: (M,) int64, the rows of the cache to train on; M is at least `batch_size`.
            first_step, first_epoch: where these images came in, at the beginning of an epoch.
        """
        self._cache = cache
        self._rows = rows
        self._batch_size = batch_size
        self._seed = seed
        self._device = device
        self._first_step = first_step
        self._first_epoch = first_epoch
        self.steps_per_epoch = len(rows) // batch_size

    def epoch_of(self, step: int) -> int:
        """The epoch of the step after `step` steps: how many were completed by then."""
        return self._first_epoch + (step - self._first_step) // self.steps_per_epoch

    def begins_epoch(self, step: int) -> bool:
        """Whether `step` steps complete an epoch, so that the next step begins one."""
        return (step - self._first_step) % self.steps_per_epoch == 0

    def end_of_epoch(self, step: int) -> int:
        """The number of steps at which the epoch ends that goes on or begins after `step` steps."""
        return step + self.steps_per_epoch - (step - self._first_step) % self.steps_per_epoch

    def batches(self, first_step: int, num_steps: int) -> Generator[Batch, None, None]:
        """The batches of the steps from `first_step` up to `num_steps`. Close the iterator when done with it."""
        batches = (self._gather(step, rows) for step, rows in self._steps(first_step, num_steps))
        if self._cache.pixels.device == self._device and self._cache.location == "device":
            return batches
        return _ahead(batches)

    def _steps(self, first_step: int, num_steps: int) -> Iterator[tuple[int, Tensor]]:
        image_ids = self._cache.image_ids[self._rows].numpy()
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(first_step, num_steps):
            if self.epoch_of(step) != epoch:
                epoch = self.epoch_of(step)
                order = epoch_order(self._seed, epoch, image_ids)
            at = (step - self._first_step) % self.steps_per_epoch * self._batch_size
            yield step, self._rows[torch.from_numpy(order[at : at + self._batch_size])]

    def _gather(self, step: int, rows: Tensor) -> Batch:
        pixels = self._cache.pixels
        images = pixels.index_select(0, rows.to(pixels.device, non_blocking=True))  # (B, 3, S, S)
        if images.device != self._device:
            # Pinned, so that no thread waits for the copy: the device makes it when the earlier steps are done.
            images = images.pin_memory().to(self._device, non_blocking=True)
        return Batch(
            epoch=self.epoch_of(step),
            images=images,
            sizes=self._cache.sizes[rows],
            image_ids=self._cache.image_ids[rows],
            labels=self._cache.labels[rows],
        )


def _ahead(batches: Iterator[Batch]) -> Generator[Batch, None, None]:
    """The same batches, gathered by a thread before they are asked for."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(PREFETCH_BATCHES)
    closed = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not closed.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def gather() -> None:
        try:
            for batch in batches:
                put(batch)
                if closed.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=gather, name="feed", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        thread.join()


def _mix(x: npt.NDArray[np.uint64] | np.uint64) -> npt.NDArray[np.uint64]:
    """SplitMix64's mixer (Steele et al., OOPSLA 2014), a bijection of 64-bit integers."""
    x = np.atleast_1d(np.asarray(x, np.uint64))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
