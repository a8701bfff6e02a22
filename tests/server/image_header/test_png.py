"""Headers of PNG files."""

from __future__ import annotations

import io
import struct

from PIL import Image

from manyview_server.image_header import read_header
from support.images.image_files import (
    encoded,
    png_chunk,
    refusal,
    words,
)


def test_an_animated_png_counts_as_its_first_image_however_many_frames_it_has() -> None:
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 100, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    data = buffer.getvalue()
    assert read_header(data).width == 8
    many = data[:-12] + (png_chunk(b"fcTL", bytes(26)) + png_chunk(b"fdAT", bytes(9))) * 5_000 + data[-12:]
    assert read_header(many).width == 8


def test_a_png_whose_header_fails_its_checksum_is_corrupt() -> None:
    data = bytearray(encoded(40, 30))
    data[19] ^= 1
    assert refusal(bytes(data)) == "HEADER_CORRUPT"


def test_a_png_without_pixels_or_with_an_impossible_depth_is_corrupt() -> None:
    signature = b"\x89PNG\r\n\x1a\n"
    whole = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
    odd = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 7, 2, 0, 0, 0))
    assert refusal(signature + whole + png_chunk(b"IEND", b"")) == "HEADER_CORRUPT"
    assert refusal(signature + odd + png_chunk(b"IDAT", b"")) == "HEADER_CORRUPT"


def test_a_png_of_many_small_pixel_chunks_is_accepted_and_one_of_many_other_chunks_is_not() -> None:
    header, end = encoded(8, 8)[:33], png_chunk(b"IEND", b"")
    assert read_header(header + png_chunk(b"IDAT", bytes(4096)) * 3_072 + end).width == 8
    assert read_header(header + png_chunk(b"tEXt", b"k\0v") * 900 + png_chunk(b"IDAT", b"") + end).width == 8
    reason, message = words(header + png_chunk(b"tEXt", b"k\0v") * 1_001 + png_chunk(b"IDAT", b"") + end)
    assert (reason, "1,000" in message) == ("HEADER_CORRUPT", True)
    reason, message = words(header + png_chunk(b"IDAT", b"") * 20_001)
    assert (reason, "20,000" in message) == ("HEADER_CORRUPT", True)
