"""Headers of TIFF files."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manyview_server.image_header import read_header
from support.images.image_files import encoded, refusal, with_orientation, words

SHORT, LONG = 3, 4


def tiff(tags: dict[int, Any], order: str = "<", tail: bytes = bytes(64), repeat: int | None = None) -> bytes:
    """A TIFF of these tags. A tag with several values lies behind the directory, `tail` at the end."""
    names = [*tags, *([repeat] if repeat is not None else [])]
    at = 8 + 2 + 12 * len(names) + 4
    entries, behind = b"", b""
    for name in names:
        values = tags[name] if isinstance(tags[name], list) else [tags[name]]
        if len(values) == 1:
            entries += struct.pack(order + "HHII", name, LONG, 1, values[0])
        else:
            entries += struct.pack(order + "HHII", name, LONG, len(values), at + len(behind))
            behind += struct.pack(f"{order}{len(values)}I", *values)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(order + "H", len(names)) + entries + bytes(4)
    return magic + struct.pack(order + "I", 8) + directory + behind + tail


PLAIN = {256: 6, 257: 5, 258: 8, 259: 1, 262: 1, 273: 120, 277: 1, 278: 5, 279: 30}


def with_tags(**changes: Any) -> bytes:
    """`PLAIN` with other tags: t256=7 sets tag 256, and None removes one."""
    tags = {**PLAIN, **{int(name[1:]): value for name, value in changes.items()}}
    return tiff({name: value for name, value in sorted(tags.items()) if value is not None})


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read_as_pillow_reads_them(order: str) -> None:
    assert read_header(tiff(PLAIN, order)).width == 6
    gray = struct.pack(f"{order}HHIHH", 258, SHORT, 1, 8, 0)
    data = tiff(PLAIN, order)
    at = data.index(struct.pack(order + "HH", 258, LONG))
    data = data[:at] + gray + data[at + 12 :]
    assert Image.open(io.BytesIO(data)).size == (6, 5)
    header = read_header(data)
    assert (header.width, header.height) == (6, 5)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_every_mode_that_pillow_writes_is_read(mode: str) -> None:
    assert read_header(encoded(37, 23, "TIFF", mode)).width == 37


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits", "zstd", "group4"])
def test_every_allowed_compression_is_read(compression: str | None) -> None:
    mode = "1" if compression == "group4" else "RGB"
    assert read_header(encoded(300, 200, "TIFF", mode, compression=compression)).height == 200


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_orientation_turns_the_size(turn: int) -> None:
    header = read_header(encoded(40, 30, "TIFF", exif=with_orientation(turn)))
    assert (header.orientation, header.width) == (turn, 40 if turn < 5 else 30)


def test_later_pages_do_not_matter() -> None:
    buffer = io.BytesIO()
    Image.new("L", (8, 9)).save(buffer, "TIFF", save_all=True, append_images=[Image.new("L", (700, 700))])
    assert read_header(buffer.getvalue()).height == 9


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"t256": None}, "256"),
        ({"t256": [1, 2]}, "256"),
        ({"t256": 0}, "0 x 5"),
        ({"t273": None}, "strips or tiles"),
        ({"t324": [100, 110]}, "strips or tiles"),
        ({"t273": None, "t322": 16, "t324": 100}, "323"),
        ({"t273": None, "t322": 9000, "t323": 9000, "t324": 100}, "tiles of 9000 x 9000"),
        ({"t258": [8] * 9}, "258"),
    ],
)
def test_a_directory_that_makes_no_sense_is_corrupt(changes: dict[str, Any], part: str) -> None:
    reason, message = words(with_tags(**changes))
    assert (reason, part in message) == ("HEADER_CORRUPT", True), message


def test_a_directory_that_is_cut_off_or_repeats_a_tag_is_corrupt() -> None:
    whole = tiff(PLAIN)
    for data in (whole[:6], whole[:9], whole[:60], b"II*\0\xff\xff\xff\x7f" + bytes(90)):
        assert refusal(data) == "HEADER_CORRUPT"
    assert "two tags 256" in words(tiff(PLAIN, repeat=256))[1]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"t259": 6}, "compression 6"),
        ({"t259": 34925}, "allowed are none"),
        ({"t277": 7}, "7 samples"),
        ({"t258": 64}, "[64]"),
    ],
)
def test_what_pillow_does_not_read_safely_is_refused(changes: dict[str, Any], part: str) -> None:
    reason, message = words(with_tags(**changes))
    assert (reason, part in message) == ("FORMAT_NOT_ALLOWED", True), message


@pytest.mark.parametrize("changes", [{"t254": 1}, {"t50706": 1}])
def test_a_raw_photograph_is_not_taken_for_its_thumbnail(changes: dict[str, Any]) -> None:
    assert "raw photograph" in words(with_tags(**changes))[1]
    assert read_header(with_tags(t254=0)).width == 6


def test_many_tags_and_many_strips_are_refused_with_the_limits() -> None:
    many = {name: 1 for name in range(1000, 2001)}
    assert "1,000" in words(tiff({**PLAIN, **many}))[1]
    assert "65,536" in words(with_tags(t273=[100] * 65_537))[1]


def test_the_scans_of_jpegs_inside_are_limited_as_those_of_a_jpeg_file_are() -> None:
    scans = (b"\xff\xda" + bytes(10)) * 100
    tags = {**PLAIN, 256: 4000, 257: 4000, 259: 7, 278: 4000, 279: len(scans)}
    tags[273] = len(tiff(tags, tail=b""))
    assert refusal(tiff(tags, tail=scans)) == "TOO_MANY_SCANS"
    few = {**tags, 279: 24}
    assert read_header(tiff(few, tail=scans)).width == 4000
    shared = {**tags, 278: 1, 273: [200] * 3, 279: [1000] * 3}
    assert refusal(tiff(shared, tail=scans)) == "HEADER_CORRUPT"


def test_a_whole_jpeg_tiff_of_many_strips_passes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 400, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "TIFF", compression="jpeg", tiffinfo={278: 16})
    assert read_header(buffer.getvalue()).height == 600
