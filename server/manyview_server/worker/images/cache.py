"""A job's images, decoded once: one uint8 tensor that lives on the device, in memory, or in a scratch file.

Shapes: N images of the cache, S pixels on a side of it.

Every image is resampled to S x S whatever its shape, with its true size beside it: crops are drawn in the true geometry
and mapped onto the square.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyview_server.link.decode_notes import DecodeNotes
from manyview_server.store.images.shards import ShardReader
from manyview_server.system.host_memory import host_memory
from manyview_server.worker.images import image_reader, scratch
from manyview_server.worker.images.decode_memory import DecodeMemory
from manyview_server.worker.images.decoder import DecodeError
from manyview_server.worker.images.guarded_decoder import GuardedDecoder, Resampled
from manyview_server.worker.images.scratch import ScratchDiskFull

Snapshot = npt.NDArray[Any]
"""An array of `store.shards.SNAPSHOT_DTYPE`."""

CHUNK_IMAGES = 64
"""Decoded per task of a thread, and moved to the device together."""
HOST_MEMORY_FRACTION = 0.5
"""The largest share of the available memory that images take; further images go to a scratch file."""
FULL_DISK_MEMORY_FRACTION = 0.8
"""The same where the disk has no room for a scratch file, so that a small disk beside much memory stops no training."""


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """An image of the snapshot that has no pixels."""

    image_id: int
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class ImageCache:
    """The decoded images of a snapshot, row by row; rows of unreadable ones are zero."""

    storage: Tensor
    """(N or more, 3, S, S) uint8: with room for images that may come."""
    sizes: Tensor
    """(N, 2) int64, height and width before resampling. On the CPU, as are the next three."""
    image_ids: Tensor
    """(N,) int64."""
    labels: Tensor
    """(N,) int64, -1 where there is none."""
    readable: Tensor
    """(N,) bool."""
    location: str
    """"device", "memory" or "file"."""
    unreadable: tuple[Unreadable, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def num_classes(self) -> int:
        """Labels are numbered from 0 in the order in which they first appeared."""
        return int(self.labels.max()) + 1 if len(self.labels) else 0

    @property
    def device_bytes(self) -> int:
        """What it takes of the device."""
        return self.storage.nbytes if self.location == "device" else 0

    @property
    def pixels(self) -> Tensor:
        """(N, 3, S, S) uint8."""
        return self.storage[: len(self)]

    def first(self, num_images: int) -> ImageCache:
        """The first rows alone, in the same memory."""
        ids = self.image_ids[:num_images]
        known = set(ids.tolist())
        return replace(
            self,
            sizes=self.sizes[:num_images],
            image_ids=ids,
            labels=self.labels[:num_images],
            readable=self.readable[:num_images],
            unreadable=tuple(image for image in self.unreadable if image.image_id in known),
        )


def choose_size(snapshot: Snapshot, image_size: int, decode_size: int | None) -> int:
    """S: `decode_size`, or else the images' own side where all are squares of one side up to 2 * image_size, else that.

    Twice the size of a view keeps crops of a quarter of the area sharp.
    """
    if decode_size is not None:
        return decode_size
    widths, heights = snapshot["width"], snapshot["height"]
    side = int(widths[0]) if len(snapshot) else 0
    common = side and side <= 2 * image_size and bool(np.all(widths == side) and np.all(heights == side))
    return side if common else 2 * image_size


@dataclass(frozen=True, kw_only=True)
class CacheBuilder:
    """Reads, checks and decodes a data set's images."""

    dataset_dir: Path
    size: int
    """S."""
    device: torch.device
    cache_bytes: int
    """The largest cache that may lie on the device."""
    scratch_dir: Path
    num_threads: int
    notes: DecodeNotes | None = None
    """Where the threads note what they decode, in case it kills them or takes too long."""
    memory: DecodeMemory = field(default_factory=DecodeMemory)
    """The memory that all decodes together may take."""
    suspects: Collection[int] = frozenset()
    """Images that are decoded alone before all others, and noted so: which one kills the process is known then."""
    quarantined: Mapping[int, str] = field(default_factory=dict)
    """Images that must not be decoded, each with its reason."""

    def decode(
        self,
        snapshot: Snapshot,
        stopped: Callable[[], bool],
        *,
        beside_training: bool = False,
        held_bytes: int = 0,
    ) -> ImageCache:
        """Return every image of `snapshot`, decoded.

        Args:
            stopped: called between chunks; once it returns True, the rest stays unread.
            beside_training: leave half of the threads to training, and torch's number of threads as it is.
            held_bytes: how much of `cache_bytes` other images take.

        Raises:
            ScratchDiskFull: the images fit neither into memory nor on the disk.
        """
        self._try_alone(snapshot)
        storage, location = self._allocate(len(snapshot), self.cache_bytes - held_bytes)
        sizes = np.stack([snapshot["height"], snapshot["width"]], axis=1).astype(np.int64)
        readable = np.ones(len(snapshot), dtype=bool)
        unreadable: list[Unreadable] = []
        reader = ShardReader(self.dataset_dir)
        lock = threading.Lock()

        def decode_rows(rows: range) -> None:
            if stopped():
                return
            # On the host the rows are written where they stay; for another device they are collected first.
            on_host = storage.device.type == "cpu"
            target = storage[rows.start : rows.stop] if on_host else _host_rows(len(rows), self.size)
            for at, row in enumerate(rows):
                try:
                    image = self._decode(reader, snapshot[row])
                    sizes[row] = (image.height, image.width)
                    target[at] = image.pixels
                except DecodeError as error:
                    readable[row] = False
                    with lock:
                        unreadable.append(_unreadable(snapshot[row], error))
            if not on_host:
                storage[rows.start : rows.stop] = target

        starts = range(0, len(snapshot), CHUNK_IMAGES)
        chunks = (range(at, min(at + CHUNK_IMAGES, len(snapshot))) for at in starts)
        num_threads = self.num_threads // 2 if beside_training else self.num_threads
        kernels = nullcontext() if beside_training else _single_threaded_kernels()
        with kernels, ThreadPoolExecutor(max(1, num_threads), "decode") as pool:
            list(pool.map(decode_rows, chunks))
        reader.close()
        return ImageCache(
            storage=storage,
            sizes=torch.from_numpy(sizes),
            image_ids=torch.from_numpy(snapshot["image_id"].astype(np.int64)),
            labels=torch.from_numpy(snapshot["label"].astype(np.int64)),
            readable=torch.from_numpy(readable),
            location=location,
            unreadable=tuple(unreadable),
        )

    def _try_alone(self, snapshot: Snapshot) -> None:
        reader = ShardReader(self.dataset_dir)
        for row in snapshot[np.isin(snapshot["image_id"], list(self.suspects))]:
            with suppress(DecodeError):
                self._decode(reader, row, alone=True)
        reader.close()

    def extend(self, cache: ImageCache, more: ImageCache) -> ImageCache:
        """Return `cache` with the rows of `more` after its own. Holders of `cache` may go on reading it.

        If there is no room, the storage is copied into one of twice the size, so each image moves a few times at most.

        Raises:
            ScratchDiskFull: they fit neither into memory nor on the disk.
        """
        num_before, num_images = len(cache), len(cache) + len(more)
        storage, location = cache.storage, cache.location
        if num_images > len(storage):
            left = self.cache_bytes - cache.device_bytes - more.device_bytes
            twice = max(num_images, 2 * num_before)
            fits = self._num_bytes(twice) <= left or self._num_bytes(num_images) > left
            try:
                storage, location = self._allocate(twice if fits else num_images, left)
            except ScratchDiskFull:
                storage, location = self._allocate(num_images, left)
            storage[:num_before] = cache.pixels
        storage[num_before:num_images] = more.pixels
        return ImageCache(
            storage=storage,
            sizes=torch.cat([cache.sizes, more.sizes]),
            image_ids=torch.cat([cache.image_ids, more.image_ids]),
            labels=torch.cat([cache.labels, more.labels]),
            readable=torch.cat([cache.readable, more.readable]),
            location=location,
            unreadable=cache.unreadable + more.unreadable,
        )

    def _decode(self, reader: ShardReader, row: Any, *, alone: bool = False) -> Resampled:
        data = image_reader.read(reader, row, self.quarantined)
        guarded = GuardedDecoder("cache.decode", self.notes, self.memory)
        return guarded.decode(data, self.size, item=int(row["image_id"]), alone=alone)

    def _num_bytes(self, num_images: int) -> int:
        return num_images * 3 * self.size * self.size

    def _allocate(self, num_images: int, device_bytes: int) -> tuple[Tensor, str]:
        """Return zeroed memory, and where it is: as near to the device as it fits. Raises ScratchDiskFull."""
        shape, num_bytes = (num_images, 3, self.size, self.size), self._num_bytes(num_images)
        available_bytes = host_memory().available_bytes
        fits_in_memory = num_bytes <= HOST_MEMORY_FRACTION * available_bytes
        on_cpu = self.device.type == "cpu"
        if num_bytes == 0 or (num_bytes <= device_bytes and (fits_in_memory or not on_cpu)):
            return torch.zeros(shape, dtype=torch.uint8, device=self.device), "device"
        if fits_in_memory and not on_cpu:
            return torch.zeros(shape, dtype=torch.uint8), "memory"
        try:
            return torch.from_numpy(scratch.allocate(self.scratch_dir, shape)), "file"
        except ScratchDiskFull:
            if not on_cpu or num_bytes > min(device_bytes, FULL_DISK_MEMORY_FRACTION * available_bytes):
                raise
        return torch.zeros(shape, dtype=torch.uint8), "device"


def _unreadable(row: Any, error: DecodeError) -> Unreadable:
    return Unreadable(image_id=int(row["image_id"]), reason=error.reason, message=str(error))


def _host_rows(num_rows: int, size: int) -> Tensor:
    return torch.zeros(num_rows, 3, size, size, dtype=torch.uint8)


@contextmanager
def _single_threaded_kernels() -> Iterator[None]:
    """Threads started within run torch's kernels alone, instead of with a team of threads each."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
