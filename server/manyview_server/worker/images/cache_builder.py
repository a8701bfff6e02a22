"""Decode a job's images once, into a cache on the device, in memory, or in a scratch file.

Shapes: N images of the cache, S pixels on a side of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
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
from manyview_server.worker.images.cache import DarkImage, ImageCache, Unreadable
from manyview_server.worker.images.decode_memory import DecodeMemory
from manyview_server.worker.images.decoder import DecodeError
from manyview_server.worker.images.guarded_decoder import GuardedDecoder, Resampled
from manyview_server.worker.images.rgb import DEFAULT_RULE, PixelRule
from manyview_server.worker.images.scratch import ScratchDiskFull

Snapshot = npt.NDArray[Any]
"""An array of `store.images.shards.SNAPSHOT_DTYPE`."""

CHUNK_IMAGES = 64
"""The images that a thread decodes per task and moves to the device together."""
DARK_BITS = 14
"""An image of 16 bits that uses at most this many has at most a quarter of the brightness that it could have."""
HOST_MEMORY_FRACTION = 0.5
"""The largest share of the available memory that images take; further images go to a scratch file."""
FULL_DISK_MEMORY_FRACTION = 0.8
"""The same where the disk has no room for a scratch file, so that a small disk beside much memory stops no training."""


def choose_size(snapshot: Snapshot, image_size: int, decode_size: int | None) -> int:
    """Return S: `decode_size`, if it is set; otherwise 2 * image_size, or the images' own side if that is smaller.

    Images have a side of their own only if all are squares of one size. Twice the size of a view keeps crops of a
    quarter of the area sharp.
    """
    if decode_size is not None:
        return decode_size
    widths, heights = snapshot["width"], snapshot["height"]
    side = int(widths[0]) if len(snapshot) else 0
    common = side and side <= 2 * image_size and bool(np.all(widths == side) and np.all(heights == side))
    return side if common else 2 * image_size


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a cache, which threads write in place."""

    storage: Tensor
    """(n, 3, S, S) uint8."""
    sizes: npt.NDArray[np.int64]
    """(n, 2), height and width."""
    readable: npt.NDArray[np.bool_]
    used_bits: npt.NDArray[np.uint8]
    """The bits that an image of 16 bits per channel uses; 0 for others."""


@dataclass(frozen=True, kw_only=True)
class CacheBuilder:
    """Reads, checks and decodes images of a data set."""

    dataset_dir: Path
    size: int
    """S."""
    device: torch.device
    cache_bytes: int
    """The largest cache that may lie on the device."""
    scratch_dir: Path
    num_threads: int
    rule: PixelRule = DEFAULT_RULE
    """The rule by which pixels become RGB."""
    notes: DecodeNotes | None = None
    """The threads note here what they decode, in case it kills them or takes too long."""
    memory: DecodeMemory = field(default_factory=DecodeMemory)
    """The memory that all decodes together may take."""
    suspects: Collection[int] = frozenset()
    """Images that are decoded alone, before all others, so that the one that kills the process is known."""
    quarantined: Mapping[int, str] = field(default_factory=dict)
    """Images that must not be decoded, each with its reason."""

    def decode(
        self,
        snapshot: Snapshot,
        stopped: Callable[[], bool],
        *,
        beside_training: bool = False,
        held_bytes: int = 0,
        on_images: Callable[[int], None] = lambda _: None,
    ) -> ImageCache:
        """Return every image of `snapshot`, decoded.

        Args:
            stopped: called between chunks; once it returns True, the rest stays unread.
            beside_training: leave half of the threads to training, and torch's number of threads as it is.
            held_bytes: how much of `cache_bytes` other images take.
            on_images: called with the number of images of each chunk, once it is decoded, by one thread.

        Raises:
            ScratchDiskFull: the images fit neither into memory nor on the disk.
        """
        self._try_alone(snapshot)
        storage, location = self._allocate(len(snapshot), self.cache_bytes - held_bytes)
        sizes = np.stack([snapshot["height"], snapshot["width"]], axis=1).astype(np.int64)
        readable = np.ones(len(snapshot), dtype=bool)
        used_bits = np.zeros(len(snapshot), dtype=np.uint8)
        reader = ShardReader(self.dataset_dir)
        unreadable: list[Unreadable] = []

        def decode_chunk(start: int) -> list[Unreadable]:
            chunk = slice(start, start + CHUNK_IMAGES)
            if stopped():
                return []
            rows = Rows(storage[chunk], sizes[chunk], readable[chunk], used_bits[chunk])
            return self._decode_chunk(reader, snapshot[chunk], rows)

        num_threads = self.num_threads // 2 if beside_training else self.num_threads
        kernels = nullcontext() if beside_training else _single_threaded_kernels()
        with kernels, ThreadPoolExecutor(max(1, num_threads), "decode") as pool:
            starts = range(0, len(snapshot), CHUNK_IMAGES)
            for start, failed in zip(starts, pool.map(decode_chunk, starts), strict=True):
                unreadable += failed
                on_images(min(CHUNK_IMAGES, len(snapshot) - start))
        reader.close()
        return ImageCache(
            storage=storage,
            sizes=torch.from_numpy(sizes),
            image_ids=torch.from_numpy(snapshot["image_id"].astype(np.int64)),
            labels=torch.from_numpy(snapshot["label"].astype(np.int64)),
            readable=torch.from_numpy(readable),
            location=location,
            unreadable=tuple(unreadable),
            dark=_dark_images(snapshot, used_bits),
        )

    def _decode_chunk(self, reader: ShardReader, snapshot: Snapshot, rows: Rows) -> list[Unreadable]:
        """Decode the images of some rows. Return the unreadable ones."""
        unreadable: list[Unreadable] = []
        storage = rows.storage
        # Rows on the host are written in place. Those of another device are collected and then moved together.
        on_host = storage.device.type == "cpu"
        pixels = storage if on_host else torch.zeros(storage.shape, dtype=torch.uint8)
        for index, row in enumerate(snapshot):
            try:
                image = self._decode(reader, row)
                rows.sizes[index] = (image.height, image.width)
                rows.used_bits[index] = image.used_bits or 0
                pixels[index] = image.pixels
            except DecodeError as error:
                rows.readable[index] = False
                unreadable.append(Unreadable(image_id=int(row["image_id"]), reason=error.reason, message=str(error)))
        if not on_host:
            storage.copy_(pixels)
        return unreadable

    def _try_alone(self, snapshot: Snapshot) -> None:
        reader = ShardReader(self.dataset_dir)
        for row in snapshot[np.isin(snapshot["image_id"], list(self.suspects))]:
            with suppress(DecodeError):
                self._decode(reader, row, alone=True)
        reader.close()

    def extend(self, cache: ImageCache, more: ImageCache) -> ImageCache:
        """Return `cache` with the rows of `more` after its own. Holders of `cache` may continue to read it.

        If there is no room, the storage is copied into one of twice the size, so each image moves a few times at most.

        Raises:
            ScratchDiskFull: the images fit neither into memory nor on the disk.
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
            dark=cache.dark + more.dark,
        )

    def _decode(self, reader: ShardReader, row: Any, *, alone: bool = False) -> Resampled:
        data = image_reader.read(reader, row, self.quarantined)
        guarded = GuardedDecoder("cache.decode", self.notes, self.memory)
        return guarded.decode(data, self.size, self.rule, item=int(row["image_id"]), alone=alone)

    def _num_bytes(self, num_images: int) -> int:
        return num_images * 3 * self.size * self.size

    def _allocate(self, num_images: int, device_bytes: int) -> tuple[Tensor, str]:
        """Return zeroed memory as near to the device as it fits, and its location. Raises ScratchDiskFull."""
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


def _dark_images(snapshot: Snapshot, used_bits: npt.NDArray[np.uint8]) -> tuple[DarkImage, ...]:
    return tuple(
        DarkImage(image_id=int(snapshot["image_id"][row]), used_bits=int(used_bits[row]))
        for row in np.flatnonzero((used_bits > 0) & (used_bits <= DARK_BITS))
    )


@contextmanager
def _single_threaded_kernels() -> Iterator[None]:
    """Let every thread that is started in the block run torch's kernels alone, not with a team of threads each."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
