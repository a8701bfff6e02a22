"""Bound the memory that a worker's decodes take together, by the images' headers, before any image is decoded.

The bound counts a decode's peak, from its first buffer to its resampled pixels. It does not count the libraries and
networks of a worker, the encoded files, or what the allocator keeps between the blocks.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from manyview_server.image_header import ImageHeader
from manyview_server.system.host_memory import host_memory
from manyview_server.worker.images.decoder import DecodeError

MEMORY_FRACTION = 0.25
"""All decodes together may take this share of the memory that the machine or its control group allows."""
BYTES_PER_PIXEL = {"jpg": 15, "png": 15, "webp": 23, "gif": 15, "bmp": 15, "tif": 18, "avif": 30, "ppm": 6}
"""The most bytes for each pixel that decoding, converting, turning and resampling hold at one time. Measured peaks were
14 for CMYK and damaged JPEGs, which Pillow decodes, and for PNGs of 16 bits, 9 for a progressive JPEG, 22 for WebP,
12 for GIF, 14 for BMP, 15 for TIFF and 18 for AVIF. A TIFF of six samples in one strip, and an AVIF of 12 bits with
alpha, take more."""


def decode_bytes(header: ImageHeader) -> int:
    """Return the most memory that decoding an image of this header takes at one time."""
    return BYTES_PER_PIXEL[header.extension] * header.width * header.height


class DecodeMemory:
    """Room for decodes. Threads wait until there is room, and get it in the order in which they came."""

    def __init__(self, limit_bytes: int | None = None) -> None:
        """Let all decodes together take `limit_bytes`; None means a share of the memory that this process may take."""
        allowed = int(MEMORY_FRACTION * host_memory().limit_bytes)
        self._limit_bytes = allowed if limit_bytes is None else limit_bytes
        self._taken_bytes = 0
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    @contextmanager
    def room(self, header: ImageHeader) -> Iterator[None]:
        """Wait for the room for one decode, and hold it while the block runs.

        Raises:
            DecodeError: DECODE_OUT_OF_MEMORY, the image alone may take more than all decodes together.
        """
        num_bytes = decode_bytes(header)
        if num_bytes > self._limit_bytes:
            what = f"decoding {header.width:,} x {header.height:,} pixels takes up to {num_bytes:,} bytes of memory"
            raise DecodeError(
                "DECODE_OUT_OF_MEMORY", f"{what}; this server allows {self._limit_bytes:,} for all decodes together"
            )
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
