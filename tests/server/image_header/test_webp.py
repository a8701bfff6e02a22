"""Headers of WebP files, and limits on parts that WebP and PPM share."""

from __future__ import annotations

import io
import struct

from PIL import Image

from manyview_server.image_header import read_header
from support.images.image_files import (
    encoded,
    refusal,
    with_orientation,
    words,
)


def test_an_animated_webp_has_the_size_of_its_canvas_and_is_turned() -> None:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (8, 6), (shade, 0, 0)) for shade in (0, 200)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], exif=with_orientation(6))
    header = read_header(buffer.getvalue())
    assert (header.width, header.height, header.orientation) == (6, 8, 6)


def test_frames_without_a_canvas_are_corrupt() -> None:
    frame = struct.pack("<4sI", b"ANMF", 16) + bytes(16)
    assert refusal(b"RIFF" + struct.pack("<I", 4 + len(frame)) + b"WEBP" + frame) == "HEADER_CORRUPT"


def test_a_webp_canvas_that_differs_from_its_image_is_corrupt() -> None:
    data = bytearray(encoded(40, 30, "WEBP", exif=with_orientation(1)))
    assert data[12:16] == b"VP8X"
    data[24:27] = (9).to_bytes(3, "little")
    assert refusal(bytes(data)) == "HEADER_CORRUPT"


def test_a_webp_of_many_chunks_and_a_ppm_of_many_comments_are_refused_with_their_limits() -> None:
    extended = encoded(8, 8, "WEBP", exif=with_orientation(1))
    reason, message = words(extended + b"JUNK\0\0\0\0" * 20_000)
    assert (reason, "20,000" in message) == ("HEADER_CORRUPT", True)
    assert read_header(extended + b"JUNK\0\0\0\0" * 19_000).width == 8
    comment = b"#" + bytes(99) + b"\n"
    assert read_header(b"P6\n" + comment * 500 + b"1 1\n255\n\0\0\0").width == 1
    reason, message = words(b"P6\n" + comment * 700 + b"1 1\n255\n\0\0\0")
    assert (reason, "65,536" in message) == ("HEADER_CORRUPT", True)
