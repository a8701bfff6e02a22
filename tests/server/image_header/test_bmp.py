"""Headers of BMP files."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image

from manyview_server.image_header import read_header
from manyview_server.image_header.bmp import MAX_RLE_BYTES
from support.images.image_files import encoded, refusal, words


def bmp(width: int, height: int, depth: int = 24, compression: int = 0, pixels: bytes | None = None) -> bytes:
    if pixels is None:
        pixels = bytes((width * depth + 31) // 32 * 4 * abs(height))
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, compression, len(pixels), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + info + pixels


def test_the_old_header_and_rows_from_the_top_are_read_as_pillow_reads_them() -> None:
    old = b"BM" + struct.pack("<IHHI", 26 + 32, 0, 0, 26) + struct.pack("<IHHHH", 12, 3, 2, 1, 24) + bytes(32)
    for data, size in ((old, (3, 2)), (bmp(5, -4), (5, 4)), (bmp(7, 3), (7, 3))):
        header = read_header(data)
        assert (header.width, header.height) == size == Image.open(io.BytesIO(data)).size


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_a_bmp_that_lost_pixels_is_corrupt_and_the_message_has_both_numbers(mode: str) -> None:
    data = encoded(37, 23, "BMP", mode)
    assert read_header(data).width == 37
    reason, message = words(data[:-40])
    assert reason == "HEADER_CORRUPT"
    assert "instead of" in message


def test_a_last_row_without_its_padding_is_read() -> None:
    assert read_header(bmp(3, 2)[:-3]).height == 2  # a row has 9 bytes of pixels and 3 of padding
    assert refusal(bmp(3, 2)[:-4]) == "HEADER_CORRUPT"


@pytest.mark.parametrize(("depth", "compression"), [(24, 4), (24, 5), (2, 0), (24, 1), (8, 3), (64, 0), (8, 2)])
def test_an_unknown_depth_or_compression_is_refused(depth: int, compression: int) -> None:
    reason, message = words(bmp(4, 4, depth, compression, bytes(999)))
    assert (reason, "PNG" in message) == ("FORMAT_NOT_ALLOWED", True)


def test_run_lengths_are_read_up_to_a_limit_because_pillow_reads_each_in_python() -> None:
    assert read_header(bmp(400, 300, 8, 1, b"\x05\x01" * 40)).width == 400
    assert read_header(bmp(400, 300, 4, 2, b"\x05\x01" * 40)).width == 400
    reason, message = words(bmp(4000, 3000, 8, 1, b"\x05\x01"))
    assert (reason, "4,000,000" in message) == ("FORMAT_NOT_ALLOWED", True)
    assert refusal(bmp(400, 300, 8, 1, b"\x00\x02\x00\x00" * (MAX_RLE_BYTES // 4))) == "FORMAT_NOT_ALLOWED"


def test_a_bmp_that_claims_to_be_huge_is_refused_by_what_it_holds() -> None:
    assert refusal(bmp(60_000, 60_000, pixels=bytes(100))) == "HEADER_CORRUPT"
    assert refusal(b"BM" + bytes(12) + (999).to_bytes(4, "little") + bytes(40)) == "HEADER_CORRUPT"
