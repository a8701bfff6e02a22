"""Batches of decoded images, in the order of each epoch.

Shapes: N images of the cache, B batch, S pixels on a side of the cache.

The order is a pure function of (seed, epoch, image ids), so a resumed job takes exactly the batch that
came next.
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

from manyview_server.learn import counter_random
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
    """(B,) int64, -1 for an image without a label; on the CPU."""


def epoch_order(seed: int, epoch: int, image_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the rows (N,) in the order of an epoch: sorted by a hash of (seed, epoch, image id)."""
    return counter_random.order(torch.from_numpy(image_ids), seed=seed, epoch=epoch).numpy()


class Feed:
    """Batches of some rows of a cache, epoch after epoch. The incomplete last batch of each epoch is left out."""

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
            first_step, first_epoch: when these images were adopted, at the start of an epoch.
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
        """Return the epoch of the step after `step` steps, which is the number of epochs that are complete by then."""
        return self._first_epoch + (step - self._first_step) // self.steps_per_epoch

    def starts_epoch(self, step: int) -> bool:
        """Do `step` steps complete an epoch, so that the next step starts one?"""
        return (step - self._first_step) % self.steps_per_epoch == 0

    def end_of_epoch(self, step: int) -> int:
        """Return the number of steps at which the epoch of the step after `step` steps ends."""
        return step + self.steps_per_epoch - (step - self._first_step) % self.steps_per_epoch

    def batches(self, first_step: int, num_steps: int) -> Generator[Batch, None, None]:
        """Yield the batches of the steps from `first_step` up to `num_steps`. Close the iterator after use."""
        batches = (self._gather(step, rows) for step, rows in self._steps(first_step, num_steps))
        if self._cache.pixels.device == self._device and self._cache.location == "device":
            return batches
        return _prefetched(batches)

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
            # The device copies pinned memory by itself after the earlier steps, so no thread waits for it.
            images = images.pin_memory().to(self._device, non_blocking=True)
        return Batch(
            epoch=self.epoch_of(step),
            images=images,
            sizes=self._cache.sizes[rows],
            image_ids=self._cache.image_ids[rows],
            labels=self._cache.labels[rows],
        )


class BatchStream:
    """The batches of a job's steps, one after the other, from one feed or from several that replace each other."""

    def __init__(self, num_steps: int, *, one_epoch_at_a_time: bool) -> None:
        """
        Args:
            num_steps: the step at which the job ends.
            one_epoch_at_a_time: gather no batch beyond the epoch, because another feed may give the next one.
        """
        self._num_steps = num_steps
        self._one_epoch_at_a_time = one_epoch_at_a_time
        self._batches: Generator[Batch, None, None] | None = None
        self._end = -1

    def take(self, feed: Feed, step: int) -> Batch:
        """Return the batch of the step after `step` steps. Call it once for each step, in order."""
        if self._batches is None or step == self._end:
            self.close()
            self._end = self._num_steps
            if self._one_epoch_at_a_time:
                self._end = min(self._end, feed.end_of_epoch(step))
            self._batches = feed.batches(step, self._end)
        return next(self._batches)

    def close(self) -> None:
        """End the thread that gathers batches, if there is one."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None


def _prefetched(batches: Iterator[Batch]) -> Generator[Batch, None, None]:
    """Yield the same batches, which a thread gathers before they are needed."""
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
