"""Batches of decoded images, in the order of each epoch.

Shapes: N images of the data set, M images that are trained on, B batch, S pixels on a side of a decoded image.

The order is a pure function of (seed, epoch, image ids), so a resumed job takes exactly the batch that came next. So is
the image that takes the place of an unreadable one: it does not depend on when images were decoded.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyview_server.counted_noun import number_of
from manyview_server.learn import counter_random
from manyview_server.worker.job_images.decoded_images import DecodedImages, Gathered
from manyview_server.worker.job_images.findings import Findings
from manyview_server.worker.job_images.image_index import ImageIndex
from manyview_server.worker.job_images.pixel_store import picked
from manyview_server.worker.training_failed import TrainingFailed

PREFETCH_BATCHES = 1
"""The batches that wait on another device than the CPU for their step, beside the one that is copied there."""
UNREADABLE_HINT = "List the data set's UNREADABLE images; upload others."


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


def places_taken(readable: Tensor) -> Tensor:
    """Return (B,) int64, the place of the image that each place of a batch gets: its own, if the image is readable.

    Otherwise it is the nearest readable one before it, and before the first comes the last. One must be readable.
    """
    places = torch.arange(len(readable))
    last = torch.where(readable, places, -1).cummax(0).values
    return torch.where(last >= 0, last, last.max())


class Feed:
    """Batches of some rows of a data set, epoch after epoch. The incomplete last batch of each epoch is left out."""

    def __init__(
        self,
        decoded: DecodedImages,
        index: ImageIndex,
        rows: Tensor,
        *,
        batch_size: int,
        seed: int,
        first_step: int = 0,
        first_epoch: int = 0,
    ) -> None:
        """
        Args:
            index: the images of which `rows` are rows; `decoded` may have more.
            rows: (M,) int64, the rows to train on; M is at least `batch_size`.
            first_step, first_epoch: when these images were adopted, at the start of an epoch.
        """
        self._decoded = decoded
        self._index = index
        self._rows = rows
        self._batch_size = batch_size
        self._seed = seed
        self._first_step = first_step
        self._first_epoch = first_epoch
        self._orders_of: dict[int, npt.NDArray[np.int64]] = {}
        """The orders of the epochs whose batches are decoded, one or two: to sort 10 million images takes seconds."""
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
        """Yield the batches of the steps from `first_step` up to `num_steps`. Close the iterator after use.

        Raises:
            TrainingFailed: DATASET_UNREADABLE, no image of an epoch can be read.
            Exception: see `DecodedImages.batches`.
        """
        batches = self._batches(first_step, num_steps)
        on_cpu = self._decoded.store.device.type == "cpu"
        return batches if on_cpu else _prefetched(batches)  # another device gets each batch while the step before runs

    def _batches(self, first_step: int, num_steps: int) -> Generator[Batch, None, None]:
        with closing(self._decoded.batches(self._orders(first_step, num_steps))) as gathered:
            for step, found in zip(range(first_step, num_steps), gathered, strict=True):
                yield self._batch(step, found)

    def _orders(self, first_step: int, num_steps: int) -> Iterator[Tensor]:
        """Yield the rows of each step's batch."""
        for step in range(first_step, num_steps):
            yield self._rows_at((step - self._first_step) % self.steps_per_epoch, self._order(self.epoch_of(step)))

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the order of an epoch. It is kept until a batch of a later epoch was returned."""
        if epoch not in self._orders_of:
            self._orders_of[epoch] = epoch_order(self._seed, epoch, self._index.image_ids[self._rows].numpy())
        return self._orders_of[epoch]

    def _rows_at(self, place: int, order: npt.NDArray[np.int64]) -> Tensor:
        """Return the rows of the batch at a place of an epoch, counted from 0."""
        at = place * self._batch_size
        return self._rows[torch.from_numpy(order[at : at + self._batch_size])]

    def _batch(self, step: int, found: Gathered) -> Batch:
        self._orders_of = {epoch: order for epoch, order in self._orders_of.items() if epoch >= self.epoch_of(step)}
        if not found.readable.any():
            found = self._before(step)
        rows, images, sizes = found.rows, found.images, found.sizes
        if not found.readable.all():
            taken = places_taken(found.readable)
            rows, sizes = rows[taken], sizes[taken]
            images = picked(images, taken.to(images.device, non_blocking=True))
        return Batch(
            epoch=self.epoch_of(step),
            images=images,
            sizes=sizes,
            image_ids=self._index.image_ids[rows],
            labels=self._index.labels[rows],
        )

    def _before(self, step: int) -> Gathered:
        """Return the nearest batch before this one in its epoch that has a readable image. Before the first comes the
        last.

        Raises TrainingFailed DATASET_UNREADABLE if there is none.
        """
        place, order = (step - self._first_step) % self.steps_per_epoch, self._order(self.epoch_of(step))
        for back in range(1, self.steps_per_epoch):
            rows = self._rows_at((place - back) % self.steps_per_epoch, order)
            if not self._decoded.are_unreadable(rows):
                found = self._decoded.gather(rows)
                if found.readable.any():
                    return found
        raise _unreadable(self.steps_per_epoch * self._batch_size, self._decoded.findings)


class BatchStream:
    """The batches of a job's steps, one after the other, from one feed or from several that replace each other."""

    def __init__(self, num_steps: int, *, one_epoch_at_a_time: bool) -> None:
        """
        Args:
            num_steps: the step at which the job ends.
            one_epoch_at_a_time: decode no batch beyond the epoch, because another feed may give the next one.
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
        """Decode no further batch, and end the thread that copies batches to a device, if there is one."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None


def _unreadable(num_images: int, findings: Findings) -> TrainingFailed:
    reasons, num_read = ", ".join(sorted(findings.reasons)), number_of(findings.num_read, "image")
    message = (
        f"none of the {num_images:,} images of an epoch can be read: {reasons}; so far, {num_read} "
        f"of the data set could be read, and {findings.num_unreadable:,} could not"
    )
    return TrainingFailed("DATASET_UNREADABLE", message, UNREADABLE_HINT)


def _prefetched(batches: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
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
            with closing(batches):
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
