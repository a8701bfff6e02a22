"""Headers of PPM files."""

from __future__ import annotations

from manyview_server.image_header import ImageHeader, read_header
from support.images.image_files import (
    refusal,
)


def test_ppm_takes_comments_and_wants_exactly_its_pixels() -> None:
    good = b"P6 # made by hand\n2 # width\n 3\n255\n" + bytes(18)
    assert read_header(good) == ImageHeader(extension="ppm", width=2, height=3, pixels_start=35)
    assert refusal(good + b"\0") == "HEADER_CORRUPT"
    assert refusal(good[:-1]) == "HEADER_CORRUPT"
    assert refusal(b"P6 2 3 65535\n" + bytes(36)) == "FORMAT_NOT_ALLOWED"
    assert refusal(b"P6 0 3 255\n") == "HEADER_CORRUPT"
    assert refusal(b"P6 9999999999 1 255\n") == "HEADER_CORRUPT"
