"""The header of a WebP (RFC 9649 and RFC 6386 section 9.1).

An animated WebP counts as its first frame, which has the size of the canvas.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from manyview_server.image_header.exif import exif_orientation
from manyview_server.image_header.header import ImageHeader, corrupt, sized

MAX_WEBP_CHUNKS = 20_000
"""The most chunks of a WebP. Each frame of an animation is one."""


def read_webp(data: bytes) -> ImageHeader:
    """Read the header of a WebP. Raises HeaderRefused."""
    canvas: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    orientation: int | None = None
    for name, start, length in _webp_chunks(data):
        payload = data[start : start + min(length, 1 << 16)]
        if name == b"VP8X":
            canvas = _webp_canvas(payload)
        elif name == b"ANMF" and size is None:
            size = canvas
        elif name == b"VP8 " and size is None:
            size = _webp_lossy(payload)
        elif name == b"VP8L" and size is None:
            size = _webp_lossless(payload)
        elif name == b"EXIF" and orientation is None:
            orientation = exif_orientation(payload.removeprefix(b"Exif\x00\x00"))
        if size is not None and canvas is None:
            break  # the simple file format: one chunk
    if size is None:
        raise corrupt("WebP ends before its pixels")
    if canvas is not None and canvas != size:
        raise corrupt(f"WebP canvas of {canvas[0]} x {canvas[1]} holds an image of {size[0]} x {size[1]} pixels")
    return sized("webp", *size, orientation or 1)


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = 12
    for _ in range(MAX_WEBP_CHUNKS):
        if at + 8 > len(data):
            return
        name, length = struct.unpack_from("<4sI", data, at)
        yield name, at + 8, length
        at += 8 + length + length % 2
    raise corrupt(f"WebP has more than {MAX_WEBP_CHUNKS:,} chunks")


def _webp_canvas(payload: bytes) -> tuple[int, int]:
    if len(payload) < 10:
        raise corrupt("WebP canvas header is cut off")
    return 1 + int.from_bytes(payload[4:7], "little"), 1 + int.from_bytes(payload[7:10], "little")


def _webp_lossy(payload: bytes) -> tuple[int, int]:
    if len(payload) < 10 or payload[0] & 1 or payload[3:6] != b"\x9d\x01\x2a":
        raise corrupt("WebP has no VP8 key frame")
    width, height = struct.unpack_from("<HH", payload, 6)
    return width & 0x3FFF, height & 0x3FFF  # the upper two bits ask for upscaling, which no decoder does


def _webp_lossless(payload: bytes) -> tuple[int, int]:
    if len(payload) < 5 or payload[0] != 0x2F or payload[4] >> 5:
        raise corrupt("WebP has no VP8L header")
    bits = int.from_bytes(payload[1:5], "little")
    return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
