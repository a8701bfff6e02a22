"""The header of a PNG (W3C, third edition), with its chunk eXIf.

An animated PNG counts as its first image, which other readers of PNG see, too.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from manyview_server.image_header.exif import exif_orientation
from manyview_server.image_header.header import ImageHeader, corrupt, sized

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_BIT_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}

MAX_PNG_CHUNKS = 20_000
"""The most chunks of a PNG: 32 MiB in the 4 KiB chunks of some encoders are 8,192."""
MAX_PNG_SIDE_CHUNKS = 1_000
"""The most chunks of a PNG that hold no pixels, such as texts and profiles."""
PNG_PIXEL_CHUNKS = frozenset({b"IDAT", b"fcTL", b"fdAT"})
"""The chunks with pixels of the image and of the frames of an animation."""


def read_png(data: bytes) -> ImageHeader:
    """Read the header of a PNG. Raises HeaderRefused."""
    if data[8:16] != b"\x00\x00\x00\x0dIHDR" or len(data) < 33:
        raise corrupt("PNG does not start with a complete IHDR chunk")
    if zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
        raise corrupt("PNG header does not match its checksum")
    width, height, depth, color, compression, filtering, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    if depth not in PNG_BIT_DEPTHS.get(color, ()) or compression or filtering or interlace > 1:
        raise corrupt(f"PNG header states color type {color}, depth {depth}, interlace {interlace}")
    orientation: int | None = None
    has_pixels, num_side_chunks = False, 0
    for name, start, length in png_chunks(data):
        has_pixels = has_pixels or name == b"IDAT"
        num_side_chunks += name not in PNG_PIXEL_CHUNKS
        if num_side_chunks > MAX_PNG_SIDE_CHUNKS:
            raise corrupt(f"PNG has more than {MAX_PNG_SIDE_CHUNKS:,} chunks that hold no pixels")
        if name == b"eXIf" and orientation is None:
            orientation = exif_orientation(data[start : start + length])
    if not has_pixels:
        raise corrupt("PNG ends before its pixels")
    return sized("png", width, height, orientation or 1)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, length) of each chunk after IHDR. The last chunk may be cut off."""
    at = 33
    for _ in range(MAX_PNG_CHUNKS):
        if at + 8 > len(data):
            return
        length, name = struct.unpack_from(">I4s", data, at)
        yield name, at + 8, length
        if name == b"IEND":
            return
        at += 12 + length
    raise corrupt(f"PNG has more than {MAX_PNG_CHUNKS:,} chunks")
