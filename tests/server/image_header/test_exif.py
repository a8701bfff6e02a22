"""The orientation in EXIF data."""

from __future__ import annotations

import struct

import pytest

from manyview_server.image_header import read_header
from support.images.image_files import (
    frame,
    jpeg,
)


@pytest.mark.parametrize(
    "tiff",
    [
        b"",
        b"II*\0",
        b"XX*\0\x08\0\0\0\x01\0",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHIH", 0x0112, 3, 1, 9) + b"\0\0",
        b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIH", 0x0112, 4, 1, 6) + b"\0\0",
    ],
)
def test_damaged_exif_counts_as_upright(tiff: bytes) -> None:
    assert read_header(jpeg((0xE1, b"Exif\0\0" + tiff), (0xC0, frame()))).width == 5


def test_only_the_first_exif_segment_counts() -> None:
    def exif(orientation: int) -> tuple[int, bytes]:
        entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
        return 0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry

    assert read_header(jpeg(exif(6), exif(1), (0xC0, frame()))).width == 7
