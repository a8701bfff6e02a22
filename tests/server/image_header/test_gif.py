"""Headers of GIF files."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from manyview_server.image_header import HeaderRefused, read_header
from support.images.image_files import encoded, words

END = b"\x3b"
GRAPHIC_CONTROL = b"\x21\xf9\x04\x00\x0a\x00\x00\x00"


def frame(left: int, top: int, width: int, height: int) -> bytes:
    return b"\x2c" + struct.pack("<HHHHB", left, top, width, height, 0) + b"\x02\x02\x44\x01\x00"


def gif(width: int, height: int, *parts: bytes) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b"".join(parts) + END


def test_the_size_is_the_screens_or_what_the_first_frame_needs() -> None:
    for data in (
        gif(9, 7, frame(2, 1, 3, 3)),
        gif(2, 2, frame(5, 0, 4, 6)),
        gif(0, 0, frame(0, 0, 4, 6)),
        gif(9, 7, GRAPHIC_CONTROL, frame(0, 0, 1, 1), frame(0, 0, 400, 400)),
    ):
        header = read_header(data)
        assert (header.width, header.height) == Image.open(io.BytesIO(data)).size


def test_an_animated_gif_counts_as_its_first_frame() -> None:
    frames = [Image.new("RGB", (20, 10), (shade, 0, 0)) for shade in (0, 100, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], loop=0, comment=b"hello")
    header = read_header(buffer.getvalue())
    assert (header.extension, header.width, header.height) == ("gif", 20, 10)


EXTENSIONS = st.sampled_from(
    [
        GRAPHIC_CONTROL,
        b"\x21\xfe\x03abc\x00",
        b"\x21\xfe\x00",
        b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00",
        b"\x21\xff\x0bNETSCAPE2.0\x00",
        b"\x21\xff\x0bXMP DataXMP\x02ab\x01c\x00",
        b"\x21\x01\x00",
        b"\x21\x77\x02ab\x00",
        b"\x00",
        b"\x07\x08",
        frame(0, 0, 3, 5),
        frame(6, 0, 3, 5),
    ]
)


@given(st.lists(EXTENSIONS, max_size=6))
def test_the_first_frame_is_the_one_that_pillow_finds(parts: list[bytes]) -> None:
    data = gif(4, 4, *parts)
    try:
        header = read_header(data)
    except HeaderRefused:
        return
    assert (header.width, header.height) == Image.open(io.BytesIO(data)).size


@pytest.mark.parametrize("data", [gif(4, 4), gif(4, 4, frame(0, 0, 0, 3)), gif(4, 4)[:9], gif(4, 4, b"\x21\xf9")[:-1]])
def test_a_gif_without_a_whole_first_frame_is_corrupt(data: bytes) -> None:
    assert words(data)[0] == "HEADER_CORRUPT"


def test_a_gif_of_endless_blocks_is_refused_with_the_limit() -> None:
    comment = b"\x21\xfe" + b"\x01c" * 30_000 + b"\x00"
    assert words(gif(4, 4, comment, frame(0, 0, 1, 1))) == (
        "HEADER_CORRUPT",
        "GIF has more than 20,000 blocks before its first frame",
    )
    long = b"\x21\xfe" + (b"\xff" + bytes(255)) * 10_000 + b"\x00"
    assert read_header(gif(4, 4, long, frame(0, 0, 1, 1))).width == 4


def test_a_gif_of_every_mode_is_read() -> None:
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        assert read_header(encoded(37, 23, "GIF", mode)).height == 23
