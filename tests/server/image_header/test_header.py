"""Headers of files that Pillow wrote, and of files that nobody honest would write."""

from __future__ import annotations

import struct
import time
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview_server.image_header import HeaderRefused, ImageHeader, read_header
from support.images.image_files import (
    encoded,
    png_chunk,
    read_or_reason,
    refusal,
    with_orientation,
    with_scans,
)

MODES = {"JPEG": ["RGB", "L", "CMYK"], "PNG": ["RGB", "L", "RGBA", "P", "1", "LA", "I;16"], "WEBP": ["RGB", "RGBA"]}


EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "PPM": "ppm"}


@pytest.mark.parametrize(("file_format", "mode"), [(f, m) for f, modes in MODES.items() for m in modes])
def test_every_mode_that_pillow_writes_is_read(file_format: str, mode: str) -> None:
    header = read_header(encoded(37, 23, file_format, mode))
    assert header == ImageHeader(extension=EXTENSIONS[file_format], width=37, height=23)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from(["JPEG", "PNG", "WEBP", "PPM"]),
    st.integers(1, 8),
    st.booleans(),
)
def test_size_is_what_pillow_says_after_the_orientation(
    w: int, h: int, file_format: str, turn: int, flag: bool
) -> None:
    options: dict[str, Any] = {} if file_format == "PPM" else {"exif": with_orientation(turn)}
    if file_format == "JPEG":
        options["progressive"] = flag
    if file_format == "WEBP":
        options["lossless"] = flag
    header = read_header(encoded(w, h, file_format, **options))
    swapped = file_format != "PPM" and turn >= 5
    assert (header.width, header.height) == ((h, w) if swapped else (w, h))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "PPM"]), st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(file_format: str, data: st.DataObject) -> None:
    original = bytearray(encoded(40, 30, file_format))
    for _ in range(data.draw(st.integers(1, 4))):
        original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(original[: data.draw(st.integers(0, len(original)))])
    result = read_or_reason(cut)
    if isinstance(result, ImageHeader):
        assert min(result.width, result.height) > 0
    else:
        assert result in {"FORMAT_NOT_ALLOWED", "ANIMATED", "HEADER_CORRUPT"}


MAGICS = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"P6", b""]


@given(st.binary(max_size=200), st.sampled_from(MAGICS))
def test_arbitrary_bytes_behind_a_magic_never_crash(tail: bytes, magic: bytes) -> None:
    assert read_or_reason(magic + tail)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_a_header_that_is_cut_off_is_corrupt(file_format: str) -> None:
    assert refusal(encoded(40, 30, file_format)[:24]) == "HEADER_CORRUPT"


def test_a_truncated_body_passes_because_only_decoding_shows_it() -> None:
    data = encoded(400, 300, "JPEG")
    assert read_header(data[: len(data) - 50]).width == 400


def test_a_bomb_is_measured_without_being_decoded() -> None:
    pixels = zlib.compress(b"\0" * 1000)
    ihdr = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", ihdr) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    assert read_header(bomb).width == 60_000


@pytest.mark.parametrize(
    "data", [b"GIF89a....", b"BM12345", b"", b"\x00", b"II*\0....", b"P5 1 1 255\n0", b"hello world"]
)
def test_other_formats_are_named_or_shown(data: bytes) -> None:
    assert refusal(data) == "FORMAT_NOT_ALLOWED"


def test_heic_is_called_by_its_name() -> None:
    with pytest.raises(HeaderRefused, match="HEIC"):
        read_header(b"\0\0\0\x18ftypheic\0\0\0\0")


ENDLESS = {
    "jpeg restarts before the frame": b"\xff\xd8" + b"\xff\xd0" * 6_000_000,
    "jpeg fill": b"\xff\xd8\xff" + b"\xff" * 12_000_000,
    "jpeg segments": b"\xff\xd8" + b"\xff\xe0\x00\x02" * 3_000_000,
    "jpeg markers between scans": with_scans(8, 8, 1)[:-2] + b"\xff\x01" * 6_000_000,
    "jpeg segments between scans": with_scans(8, 8, 1)[:-2] + b"\xff\xfe\x00\x02" * 3_000_000,
    "png": encoded(2, 2)[:33] + png_chunk(b"tEXt", b"") * 1_000_000,
    "webp": b"RIFF\0\0\0\0WEBP" + b"JUNK\0\0\0\0" * 1_500_000,
    "ppm comments": b"P6" + b"#\n" * 6_000_000,
    "ppm blanks": b"P6" + b" " * 12_000_000,
    "ppm digits": b"P6 " + b"9" * 12_000_000,
}


@pytest.mark.parametrize("data", ENDLESS.values(), ids=ENDLESS)
def test_a_file_of_endless_parts_is_refused_at_a_bounded_cost(data: bytes) -> None:
    begin = time.process_time()
    assert refusal(data) == "HEADER_CORRUPT"
    assert time.process_time() - begin < 2.0
