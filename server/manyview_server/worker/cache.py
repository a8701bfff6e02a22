"""A job's images, decoded once: one uint8 tensor that lives on the device, in memory, or in a scratch file.

Shapes: N images of the snapshot, S pixels on a side of the cache.

Every image is resampled to S x S whatever its shape, with its true size beside it: crops are drawn in the true geometry
and mapped onto the square.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyview_server.store.shards import ShardReader, image_id_of
from manyview_server.worker import decoder
from manyview_server.worker.decoder import DecodeError

Snapshot = npt.NDArray[Any]
"""An array of `store.shards.SNAPSHOT_DTYPE`."""

CHUNK_IMAGES = 64
"""Decoded per task of a thread, and moved to the device together."""
HOST_MEMORY_FRACTION = 0.5
"""Of the memory that is free, at most so much is taken for images; beyond that they go to a scratch file."""


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """An image of the snapshot that has no pixels."""

    image_id: int
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class ImageCache:
    """The decoded images of a snapshot, row by row; rows of unreadable ones are zero."""

    pixels: Tensor
    """(N, 3, S, S) uint8."""
    sizes: Tensor
    """(N, 2) int64, height and width before resampling. On the CPU, as are the next two."""
    image_ids: Tensor
    """(N,) int64."""
    labels: Tensor
    """(N,) int64, -1 where there is none."""
    readable: Tensor
    """(N,) bool."""
    location: str
    """"device", "memory" or "file"."""
    unreadable: tuple[Unreadable, ...] = field(repr=False)


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


def decode_all(
    snapshot: Snapshot,
    dataset_dir: Path,
    size: int,
    *,
    device: torch.device,
    cache_bytes: int,
    scratch_dir: Path,
    num_threads: int,
    stopped: Callable[[], bool],
) -> ImageCache:
    """Read, check and decode every image of `snapshot`.

    Args:
        cache_bytes: the largest cache that may lie on `device`.
        stopped: asked between chunks; once it says yes, the rest stays unread.
    """
    num_images = len(snapshot)
    pixels, location = _allocate((num_images, 3, size, size), device, cache_bytes, scratch_dir)
    sizes = np.stack([snapshot["height"], snapshot["width"]], axis=1).astype(np.int64)
    readable = np.ones(num_images, dtype=bool)
    unreadable: list[Unreadable] = []
    reader = ShardReader(dataset_dir)
    lock = threading.Lock()

    def decode_rows(rows: range) -> None:
        if stopped():
            return
        # On the host the rows are written where they stay; for another device they are collected first.
        target = pixels[rows.start : rows.stop] if pixels.device.type == "cpu" else _host_rows(len(rows), size)
        for at, row in enumerate(rows):
            try:
                image = _read(reader, snapshot[row])
                sizes[row] = image.shape[:2]
                target[at] = decoder.resize(image, size)
            except DecodeError as error:
                readable[row] = False
                with lock:
                    unreadable.append(_unreadable(snapshot[row], error))
        if target.device != pixels.device:
            pixels[rows.start : rows.stop] = target

    chunks = (range(at, min(at + CHUNK_IMAGES, num_images)) for at in range(0, num_images, CHUNK_IMAGES))
    with _single_threaded_kernels(), ThreadPoolExecutor(max(1, num_threads), "decode") as pool:
        list(pool.map(decode_rows, chunks))
    reader.close()
    return ImageCache(
        pixels=pixels,
        sizes=torch.from_numpy(sizes),
        image_ids=torch.from_numpy(snapshot["image_id"].astype(np.int64)),
        labels=torch.from_numpy(snapshot["label"].astype(np.int64)),
        readable=torch.from_numpy(readable),
        location=location,
        unreadable=tuple(unreadable),
    )


def _read(reader: ShardReader, row: Any) -> decoder.Pixels:
    try:
        data = reader.read(int(row["shard"]), int(row["offset"]), int(row["length"]))
    except (OSError, EOFError) as error:
        raise DecodeError("IMAGE_LOST", f"the server cannot read it from shard {row['shard']} any more") from error
    if image_id_of(hashlib.sha256(data).digest()) != row["image_id"]:
        raise DecodeError("CHECKSUM_MISMATCH", "the stored bytes are not those that were sent")
    return decoder.decode(data)


def _unreadable(row: Any, error: DecodeError) -> Unreadable:
    return Unreadable(image_id=int(row["image_id"]), reason=error.reason, message=str(error))


def _allocate(shape: tuple[int, ...], device: torch.device, cache_bytes: int, scratch_dir: Path) -> tuple[Tensor, str]:
    """Zeroed memory as near to the device as it fits, and where that is."""
    num_bytes = int(np.prod(shape, dtype=np.int64))
    if num_bytes <= cache_bytes:
        return torch.zeros(shape, dtype=torch.uint8, device=device), "device"
    if device.type != "cpu" and num_bytes <= HOST_MEMORY_FRACTION * _available_memory_bytes():
        return torch.zeros(shape, dtype=torch.uint8), "memory"
    scratch_dir.mkdir(parents=True, exist_ok=True)
    # Without a name from the start, so that it goes with the process however that ends.
    with tempfile.TemporaryFile(dir=scratch_dir) as file:
        file.truncate(num_bytes)
        return torch.from_numpy(np.memmap(file, np.uint8, "r+", shape=shape)), "file"


def _available_memory_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


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
