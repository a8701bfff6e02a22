"""Headers of files that Pillow wrote, and of files that nobody honest would write."""

from __future__ import annotations

import struct
import time
import zlib
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview_server.image_header import ImageHeader, read_header
from manyview_server.image_header.formats import SIGNATURES
from support.images.avif_files import Item, avif
from support.images.image_files import (
    encoded,
    png_chunk,
    read_or_reason,
    refusal,
    with_orientation,
    with_scans,
)

MODES = {"JPEG": ["RGB", "L", "CMYK"], "PNG": ["RGB", "L", "RGBA", "P", "1", "LA", "I;16"], "WEBP": ["RGB", "RGBA"]}
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
TURNING = ["JPEG", "PNG", "WEBP", "TIFF"]
ALL = [*TURNING, "GIF", "BMP", "AVIF", "PPM"]


@pytest.mark.parametrize(("file_format", "mode"), [(f, m) for f, modes in MODES.items() for m in modes])
def test_every_mode_that_pillow_writes_is_read(file_format: str, mode: str) -> None:
    header = read_header(encoded(37, 23, file_format, mode))
    assert header == ImageHeader(extension=EXTENSIONS[file_format], width=37, height=23)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([*TURNING, "GIF", "BMP", "PPM"]),
    st.integers(1, 8),
    st.booleans(),
)
def test_size_is_what_pillow_says_after_the_orientation(
    w: int, h: int, file_format: str, turn: int, flag: bool
) -> None:
    options: dict[str, Any] = {"exif": with_orientation(turn)} if file_format in TURNING else {}
    if file_format == "JPEG":
        options["progressive"] = flag
    if file_format == "WEBP":
        options["lossless"] = flag
    header = read_header(encoded(w, h, file_format, **options))
    swapped = file_format in TURNING and turn >= 5
    assert (header.width, header.height) == ((h, w) if swapped else (w, h))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(ALL), st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(file_format: str, data: st.DataObject) -> None:
    original = bytearray(whole(file_format))
    for _ in range(data.draw(st.integers(1, 4))):
        original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(original[: data.draw(st.integers(0, len(original)))])
    result = read_or_reason(cut)
    if isinstance(result, ImageHeader):
        assert min(result.width, result.height) > 0
    else:
        assert result in {"FORMAT_NOT_ALLOWED", "HEADER_CORRUPT", "TOO_MANY_SCANS"}


@cache
def whole(file_format: str) -> bytes:
    return encoded(40, 30, file_format)


MAGICS = [*SIGNATURES, b"RIFF\0\0\0\0WEBP", b"\0\0\0\x14ftypavif\0\0\0\0mif1", b""]


@given(st.binary(max_size=200), st.sampled_from(MAGICS))
def test_arbitrary_bytes_behind_a_magic_never_crash(tail: bytes, magic: bytes) -> None:
    assert read_or_reason(magic + tail)


@pytest.mark.parametrize("file_format", [name for name in ALL if name != "PPM"])
def test_a_header_that_is_cut_off_is_corrupt(file_format: str) -> None:
    assert refusal(whole(file_format)[:24]) == "HEADER_CORRUPT"


def test_a_truncated_body_passes_because_only_decoding_shows_it() -> None:
    data = encoded(400, 300, "JPEG")
    assert read_header(data[: len(data) - 50]).width == 400


def test_a_bomb_is_measured_without_being_decoded() -> None:
    pixels = zlib.compress(b"\0" * 1000)
    ihdr = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", ihdr) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    assert read_header(bomb).width == 60_000


AVIF = b"\0\0\0\x14ftypavif\0\0\0\0mif1"
ENDLESS = {
    "jpeg restarts before the frame": b"\xff\xd8" + b"\xff\xd0" * 6_000_000,
    "jpeg fill": b"\xff\xd8\xff" + b"\xff" * 12_000_000,
    "jpeg segments": b"\xff\xd8" + b"\xff\xe0\x00\x02" * 3_000_000,
    "jpeg markers between scans": with_scans(8, 8, 1)[:-2] + b"\xff\x01" * 6_000_000,
    "jpeg segments between scans": with_scans(8, 8, 1)[:-2] + b"\xff\xfe\x00\x02" * 3_000_000,
    "png": encoded(2, 2)[:33] + png_chunk(b"tEXt", b"") * 1_000_000,
    "jpeg bytes between segments": b"\xff\xd8\xff\xe0\x00\x02" + b"a" * 12_000_000,
    "webp": b"RIFF\0\0\0\0WEBP" + b"JUNK\0\0\0\0" * 1_500_000,
    "gif blocks": b"GIF89a" + bytes(7) + b"\x21\xfe" + b"\x01c" * 6_000_000,
    "gif stray bytes": b"GIF89a" + bytes(12_000_000),
    "tiff tags": b"II*\0\x08\0\0\0\xff\xff" + bytes(12_000_000),
    "avif boxes": AVIF + b"\0\0\0\x08free" * 1_500_000,
    "avif units": avif(Item(width=8, height=8, stream=b"\x12\0" * 6_000_000)),
    "ppm comments": b"P6" + b"#\n" * 6_000_000,
    "ppm blanks": b"P6" + b" " * 12_000_000,
    "ppm digits": b"P6 " + b"9" * 12_000_000,
}


@pytest.mark.parametrize("data", ENDLESS.values(), ids=ENDLESS)
def test_a_file_of_endless_parts_is_refused_at_a_bounded_cost(data: bytes) -> None:
    begin = time.process_time()
    assert refusal(data) == "HEADER_CORRUPT"
    assert time.process_time() - begin < 2.0
