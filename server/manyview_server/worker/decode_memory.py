"""The memory that a worker's decodes take together: bounded by what the images' headers say, before any is decoded.

The bound counts a decode's peak, from its first buffer to its resampled pixels. Beside it a worker holds its libraries
and networks, the encoded files, and what the allocator keeps between the blocks.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from manyview_server.host_memory import host_memory
from manyview_server.image_header import ImageHeader
from manyview_server.worker.decoder import DecodeError

MEMORY_FRACTION = 0.25
"""This share of the memory that the machine or its control group allows is for decodes."""
BYTES_PER_PIXEL = {"jpg": 15, "png": 15, "webp": 23, "ppm": 6}
"""The most that decoding, converting, turning and resampling hold at one time, for each pixel. Measured peaks were 14
for CMYK and damaged JPEGs, which Pillow decodes, and for PNGs of 16 bits, 9 for a progressive JPEG, and 22 for WebP."""


def decode_bytes(header: ImageHeader) -> int:
    """Return the most memory that decoding an image of this header takes at one time."""
    return BYTES_PER_PIXEL[header.extension] * header.width * header.height


class DecodeMemory:
    """Room for decodes. Threads that find none wait in the order in which they came."""

    def __init__(self, limit_bytes: int | None = None) -> None:
        """Let all decodes together take `limit_bytes`, or a share of the memory that this process may take."""
        allowed = int(MEMORY_FRACTION * host_memory().limit_bytes)
        self._limit_bytes = allowed if limit_bytes is None else limit_bytes
        self._taken_bytes = 0
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    @contextmanager
    def room(self, header: ImageHeader) -> Iterator[None]:
        """Hold the room for one decode while the block runs; wait for it first.

        Raises:
            DecodeError: DECODE_OUT_OF_MEMORY, the image alone would take more than there is for all.
        """
        num_bytes = decode_bytes(header)
        if num_bytes > self._limit_bytes:
            what = f"decoding {header.width:,} x {header.height:,} pixels takes up to {num_bytes:,} bytes of memory"
            raise DecodeError("DECODE_OUT_OF_MEMORY", f"{what}; this server allows {self._limit_bytes:,} for that")
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            self._changed.wait_for(
                lambda: self._waiting[0] is turn and self._taken_bytes + num_bytes <= self._limit_bytes
            )
            self._waiting.popleft()
            self._taken_bytes += num_bytes
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._taken_bytes -= num_bytes
                self._changed.notify_all()
