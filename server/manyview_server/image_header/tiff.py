"""The header of a TIFF (revision 6.0): the directory of its first page. Later pages are not looked at.

A directory may name any place of the file any number of times, and a tile may be larger than the image. So the reader
limits the tags, the strips and tiles, and what the JPEGs inside may cost.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manyview_server.image_header.exif import exif_orientation
from manyview_server.image_header.header import HeaderRefused, ImageHeader, corrupt, sized
from manyview_server.image_header.jpeg import MAX_JPEG_VISITS

TIFF_BYTE_ORDERS = {b"II*\x00": "<", b"MM\x00*": ">"}

PAGE_KIND, WIDTH, LENGTH, BITS_PER_SAMPLE, COMPRESSION, SAMPLES_PER_PIXEL = 254, 256, 257, 258, 259, 277
STRIP_OFFSETS, ROWS_PER_STRIP, STRIP_BYTES = 273, 278, 279
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
DNG_VERSION = 50706

FORMATS = {3: "H", 4: "I"}
"""The types of tags that are read here: SHORT and LONG."""

JPEG = 7
COMPRESSIONS = {
    1: "none",
    2: "CCITT",
    3: "CCITT",
    4: "CCITT",
    5: "LZW",
    JPEG: "JPEG",
    8: "deflate",
    32773: "PackBits",
    32946: "deflate",
    50000: "Zstandard",
}

MAX_TIFF_TAGS = 1_000
MAX_TIFF_SEGMENTS = 65_536
"""The most strips or tiles. Pillow goes through them in Python if they are not compressed."""
MAX_TIFF_SAMPLES = 6
"""The most samples of a pixel. Pillow reads no more."""
MAX_TIFF_BITS = 32
"""The most bits of a sample."""
SMALL_TILE_PIXELS = 1 << 20
"""A tile may be this large even if the image is smaller."""


def read_tiff(data: bytes) -> ImageHeader:
    """Read the header of a TIFF. Raises HeaderRefused."""
    directory = Directory(data)
    _refuse_raw(directory)
    width, height = directory.number(WIDTH), directory.number(LENGTH)
    header = sized("tif", width, height, exif_orientation(data))
    _check_samples(directory)
    compression = directory.number(COMPRESSION, 1)
    if compression not in COMPRESSIONS:
        allowed = ", ".join(dict.fromkeys(COMPRESSIONS.values()))
        raise HeaderRefused("FORMAT_NOT_ALLOWED", f"TIFF with compression {compression}; allowed are {allowed}")
    _check_segments(directory, width, height, is_jpeg=compression == JPEG)
    return header


@dataclass(frozen=True, slots=True)
class Tag:
    """One entry of a directory. `at` is the position of its value."""

    kind: int
    count: int
    at: int


class Directory:
    """The directory of the first page: the place of each tag, and the values of those that hold numbers."""

    def __init__(self, data: bytes) -> None:
        """Read the places of all tags. Raises HeaderRefused."""
        order = TIFF_BYTE_ORDERS.get(data[:4])
        if order is None or len(data) < 8:
            raise corrupt("TIFF header is cut off")
        self.data = data
        self._order = order
        self._tags: dict[int, Tag] = {}
        start = struct.unpack_from(order + "I", data, 4)[0]
        if start + 2 > len(data):
            raise corrupt(f"the directory of the TIFF lies beyond the end of the file, at byte {start:,}")
        num_tags = struct.unpack_from(order + "H", data, start)[0]
        if num_tags > MAX_TIFF_TAGS:
            raise corrupt(f"TIFF has {num_tags:,} tags; at most {MAX_TIFF_TAGS:,} are allowed")
        if start + 2 + 12 * num_tags > len(data):
            raise corrupt("the directory of the TIFF is cut off")
        for at in range(start + 2, start + 2 + 12 * num_tags, 12):
            self._add(at)

    def _add(self, at: int) -> None:
        name, kind, count, value = struct.unpack_from(self._order + "HHII", self.data, at)
        if name in self._tags:
            raise corrupt(f"TIFF has two tags {name}")
        num_bytes = count * struct.calcsize(FORMATS.get(kind, "Q"))
        self._tags[name] = Tag(kind, count, at + 8 if num_bytes <= 4 else value)

    def __contains__(self, name: int) -> bool:
        return name in self._tags

    def count(self, name: int) -> int:
        """Return how many values a tag has."""
        return self._tags[name].count

    def numbers(self, name: int, most: int) -> npt.NDArray[np.int64]:
        """Return the values of a tag, or none if it is missing. Raises HeaderRefused if there are more than `most`."""
        tag = self._tags.get(name)
        if tag is None:
            return np.empty(0, np.int64)
        if tag.kind not in FORMATS:
            raise corrupt(f"tag {name} of the TIFF has type {tag.kind}; it must be SHORT or LONG")
        kind = np.dtype(self._order + FORMATS[tag.kind].replace("H", "u2").replace("I", "u4"))
        if tag.count > most or tag.at + tag.count * kind.itemsize > len(self.data):
            raise corrupt(
                f"tag {name} of the TIFF states {tag.count:,} as the number of its values: too many, or cut off"
            )
        return np.frombuffer(self.data, kind, tag.count, tag.at).astype(np.int64)

    def number(self, name: int, default: int | None = None) -> int:
        """Return the one value of a tag. Raises HeaderRefused if it is missing and has no default."""
        values = self.numbers(name, 1)
        if len(values) == 1:
            return int(values[0])
        if default is None or name in self._tags:
            raise corrupt(f"TIFF has no value in its tag {name}")
        return default


def _refuse_raw(directory: Directory) -> None:
    """Refuse raw photographs: their first page is a thumbnail, or holds the values of a sensor."""
    is_thumbnail = directory.number(PAGE_KIND, 0) & 1
    if is_thumbnail or DNG_VERSION in directory or directory.data[8:10] == b"CR":
        raise HeaderRefused(
            "FORMAT_NOT_ALLOWED",
            "this is a raw photograph (such as DNG, NEF, ARW or CR2), or a TIFF whose first page is a thumbnail; "
            "convert it to JPEG, PNG or TIFF",
        )


def _check_samples(directory: Directory) -> None:
    num_samples = directory.number(SAMPLES_PER_PIXEL, 1)
    bits = directory.numbers(BITS_PER_SAMPLE, MAX_TIFF_SAMPLES)
    if not 1 <= num_samples <= MAX_TIFF_SAMPLES or (len(bits) and not 1 <= int(bits.max()) <= MAX_TIFF_BITS):
        samples = "sample" if num_samples == 1 else "samples"
        found = f"TIFF with {num_samples} {samples} of {bits.tolist()} bits per pixel"
        allowed = f"at most {MAX_TIFF_SAMPLES} samples of {MAX_TIFF_BITS} bits are allowed"
        raise HeaderRefused("FORMAT_NOT_ALLOWED", f"{found}; {allowed}: save it as RGB or gray")


def _check_segments(directory: Directory, width: int, height: int, *, is_jpeg: bool) -> None:
    """Check the strips or tiles, and what the JPEGs in them cost."""
    has_tiles = TILE_WIDTH in directory or TILE_LENGTH in directory
    offsets, sizes = (TILE_OFFSETS, TILE_BYTES) if has_tiles else (STRIP_OFFSETS, STRIP_BYTES)
    if offsets not in directory or (TILE_OFFSETS in directory and STRIP_OFFSETS in directory):
        raise corrupt("TIFF must have either strips or tiles")
    if directory.count(offsets) > MAX_TIFF_SEGMENTS:
        raise corrupt(f"TIFF has {directory.count(offsets):,} strips or tiles; {MAX_TIFF_SEGMENTS:,} are allowed")
    if has_tiles:
        segment_width, segment_height = directory.number(TILE_WIDTH), directory.number(TILE_LENGTH)
        if segment_width * segment_height > max(SMALL_TILE_PIXELS, width * height):
            raise corrupt(f"TIFF of {width} x {height} pixels states tiles of {segment_width} x {segment_height}")
    else:
        segment_width, segment_height = width, min(height, directory.number(ROWS_PER_STRIP, height))
    if is_jpeg:
        places, lengths = (directory.numbers(name, MAX_TIFF_SEGMENTS) for name in (offsets, sizes))
        _check_jpeg_scans(directory.data, places, lengths, segment_width * segment_height)


def _check_jpeg_scans(
    data: bytes, places: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], segment_pixels: int
) -> None:
    """Limit the pixels that a decoder visits in the JPEGs of all strips or tiles, as for a JPEG file.

    A marker of a scan cannot be part of its data, so counting the markers counts the scans.
    """
    if len(places) != len(lengths) or not lengths.all() or int(lengths.sum()) > len(data):
        raise corrupt("the strips or tiles of the TIFF overlap, are empty, or lack their sizes")
    spans = zip(places.tolist(), lengths.tolist(), strict=True)
    num_scans = sum(data.count(b"\xff\xda", start, start + length) for start, length in spans)
    num_visits = num_scans * 4 * segment_pixels
    if num_scans > 1 and num_visits > MAX_JPEG_VISITS:
        counted = f"the {num_scans:,} JPEG scans of the TIFF make a decoder visit {num_visits:,} pixels"
        raise HeaderRefused("TOO_MANY_SCANS", f"{counted}; at most {MAX_JPEG_VISITS:,} are allowed")
