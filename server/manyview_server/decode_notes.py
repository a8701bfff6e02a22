"""What a trainer was decoding when it died: a hostile image can kill a decoder, and the dead cannot tell which it was.

The trainer's decoding threads write the ids of their images into a small mapped file, whose pages outlive the process.
Little-endian uint64: first 1 while suspects are tried alone, then the image of each thread, 0 for none.
"""

from __future__ import annotations

import mmap
import os
import queue
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILE = "decoding.notes"
SLOTS = 128
"""For decodes at one time; further ones go unnoted."""
FORMAT = struct.Struct(f"<{1 + SLOTS}Q")


def path_for(checkpoint_dir: Path) -> Path:
    """The notes of the job whose checkpoints lie there."""
    return checkpoint_dir.parent / FILE


class DecodeNotes:
    """The writer's side; threads may share it."""

    def __init__(self, path: Path) -> None:
        """Begin with empty notes. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            # With its block: on a full disk a write into the mapping would be a signal instead of an error.
            os.posix_fallocate(descriptor, 0, FORMAT.size)
            self._map = mmap.mmap(descriptor, FORMAT.size)
        finally:
            os.close(descriptor)
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(1, 1 + SLOTS):
            self._free.put(slot)

    @contextmanager
    def of(self, image_id: int, *, alone: bool = False) -> Iterator[None]:
        """Meanwhile this thread decodes the image; `alone`: and nobody else decodes anything."""
        try:
            slot = self._free.get_nowait()
        except queue.Empty:
            yield
            return
        if alone:
            self._write(0, 1)
        self._write(slot, image_id)
        try:
            yield
        finally:
            self._write(slot, 0)
            if alone:
                self._write(0, 0)
            self._free.put(slot)

    def _write(self, slot: int, value: int) -> None:
        struct.pack_into("<Q", self._map, 8 * slot, value)


def read(path: Path) -> tuple[bool, tuple[int, ...]]:
    """Whether the image was decoded alone, and which images were being decoded; none where there are no notes."""
    try:
        alone, *image_ids = FORMAT.unpack(path.read_bytes())
    except (OSError, struct.error):
        return False, ()
    return bool(alone), tuple(filter(None, image_ids))
