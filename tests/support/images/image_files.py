"""Image files for tests of headers: whole ones as Pillow writes them, and parts of which others are made."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from manyview_server.image_header import HeaderRefused, ImageHeader, read_header


def encoded(width: int, height: int, file_format: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, file_format, **options)
    return buffer.getvalue()


def with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png_chunk(name: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    body = b"".join(b"\xff" + bytes([marker]) + struct.pack(">H", len(p) + 2) + p for marker, p in segments)
    return b"\xff\xd8" + body


def frame(width: int = 5, height: int = 7, precision: int = 8, components: int = 3) -> bytes:
    return struct.pack(">BHHB", precision, height, width, components) + b"\0\0\0" * components


def progressive(width: int, height: int, mode: str = "L", **options: Any) -> bytes:
    buffer = io.BytesIO()
    noise = Image.effect_noise((width, height), 40).convert(mode)
    noise.save(buffer, "JPEG", progressive=True, **options)
    return buffer.getvalue()


def with_scans(width: int, height: int, num_scans: int, num_components: int = 1, kind: int = 0xC2) -> bytes:
    """A JPEG of scans that hold next to nothing, which decoders nevertheless carry out over the whole image."""
    scan = bytes([num_components]) + b"".join(bytes([i + 1, 0]) for i in range(num_components)) + b"\x00\x00\x00"
    scans = (jpeg((0xC4, b"\0" + b"\1" + bytes(15) + b"\0"), (0xDA, scan))[2:] + b"\x00") * num_scans
    return jpeg((kind, frame(width, height, components=num_components))) + scans + b"\xff\xd9"


def read_or_reason(data: bytes) -> ImageHeader | str:
    try:
        return read_header(data)
    except HeaderRefused as error:
        return error.reason


def refusal(data: bytes) -> str:
    with pytest.raises(HeaderRefused) as caught:
        read_header(data)
    assert str(caught.value)
    return caught.value.reason


def words(data: bytes) -> tuple[str, str]:
    with pytest.raises(HeaderRefused) as caught:
        read_header(data)
    return caught.value.reason, str(caught.value)
