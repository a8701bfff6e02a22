"""Image files that something is wrong with."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def png(width: int, height: int, pixels: bytes = b"\0") -> bytes:
    """A PNG that says it is of this size; its `pixels` need not be."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")


def saved(file_format: str, *, num_frames: int = 1, side: int = 16) -> bytes:
    """An image of any format that Pillow writes, moving where there is more than one frame."""
    random = np.random.default_rng(5)
    shades = random.integers(0, 256, (num_frames, side, side, 3), dtype=np.uint8)
    first, *others = [Image.fromarray(frame) for frame in shades]
    buffer = io.BytesIO()
    moving = {"save_all": True, "append_images": others} if others else {}
    first.save(buffer, file_format, **moving)
    return buffer.getvalue()


def cut_in_its_pixels(jpeg: bytes) -> bytes:
    """A JPEG with a whole header and half of its pixels."""
    scan = jpeg.rindex(b"\xff\xda")
    return jpeg[: scan + (len(jpeg) - scan) // 2]
