"""Headers of JPEG files: segments, frames, and limits on scans."""

from __future__ import annotations

import io
import time
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manyview_server.image_header import read_header
from manyview_server.image_header.jpeg import MARKER_WINDOW_BYTES, MAX_JPEG_SCANS, MAX_JPEG_VISITS
from support.images.image_files import (
    frame,
    jpeg,
    progressive,
    refusal,
    with_orientation,
    with_scans,
    words,
)


def test_jpeg_markers_are_walked_past_fill_bytes_and_tables() -> None:
    data = jpeg((0xC4, b"table"), (0xDB, b"\xff\xc0 looks like a frame"), (0xC2, frame()))
    padded = data[:2] + b"\xff\xff\xff" + data[2:]
    assert (read_header(padded).width, read_header(padded).height) == (5, 7)


def test_the_parts_of_a_color_profile_are_joined_in_their_order() -> None:
    name, image = b"ICC_PROFILE\x00", (0xC0, frame())
    data = jpeg((0xE2, name + b"\x02\x02second"), (0xE2, b"MPF\x00"), (0xE2, name + b"\x01\x02first "), image)
    assert read_header(data).profile == b"first second"
    assert read_header(jpeg((0xE2, name), image)).profile == b""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (jpeg((0xC3, frame())), "FORMAT_NOT_ALLOWED"),
        (jpeg((0xC1, frame(precision=12))), "FORMAT_NOT_ALLOWED"),
        (jpeg((0xC0, frame(components=2))), "HEADER_CORRUPT"),
        (jpeg((0xC0, frame(height=0))), "HEADER_CORRUPT"),
        (jpeg((0xC0, b"\x08")), "HEADER_CORRUPT"),
        (jpeg((0xDA, b"scan"), (0xC0, frame())), "HEADER_CORRUPT"),
        (jpeg((0xE0, b"x"))[:-1] + b"", "HEADER_CORRUPT"),
        (b"\xff\xd8\xff\xe0\x00\x01", "HEADER_CORRUPT"),
        (jpeg((0xE0, b"x")) + b"junk", "HEADER_CORRUPT"),
    ],
)
def test_jpeg_frames_that_no_decoder_reads_are_refused(data: bytes, reason: str) -> None:
    assert refusal(data) == reason


def test_more_scans_than_any_writer_makes_are_refused_and_the_limit_is_named() -> None:
    assert read_header(with_scans(64, 64, MAX_JPEG_SCANS)).width == 64
    reason, message = words(with_scans(64, 64, MAX_JPEG_SCANS + 1))
    assert reason == "TOO_MANY_SCANS"
    assert "200" in message


@pytest.mark.parametrize(("components", "kind", "weight"), [(1, 0xC2, 1), (3, 0xC2, 3), (4, 0xC0, 4), (1, 0xCA, 12)])
def test_scans_times_components_times_pixels_are_bounded(components: int, kind: int, weight: int) -> None:
    allowed = MAX_JPEG_VISITS // (weight * 4000 * 4000)
    assert read_header(with_scans(4000, 4000, allowed, components, kind)).width == 4000
    reason, message = words(with_scans(4000, 4000, allowed + 1, components, kind))
    assert reason == "TOO_MANY_SCANS"
    assert f"first {allowed + 1} scans" in message
    assert f"{MAX_JPEG_VISITS:,}" in message


def test_one_scan_is_allowed_at_any_size() -> None:
    assert read_header(with_scans(16_000, 16_000, 1, 4, 0xC9)).width == 16_000


def test_scans_cannot_hide_from_the_count() -> None:
    many = with_scans(64, 64, MAX_JPEG_SCANS + 1)
    first = many.index(b"\xff\xda") + 2
    end_in_comment = jpeg((0xFE, b"\xff\xd9"))[2:]
    assert refusal(many.replace(b"\xff\xda", end_in_comment + b"\xff\xda")) == "TOO_MANY_SCANS"
    assert refusal(many.replace(b"\xff\xda", b"\xff\xff\xff\xda")) == "TOO_MANY_SCANS"  # fill bytes
    restarts = many[:first] + many[first:].replace(b"\xff\xda", b"\xff\xd0\xff\x00\xff\xda")
    assert refusal(restarts) == "TOO_MANY_SCANS"
    meaningless = many[:first] + many[first:].replace(b"\xff\xda", b"\xff\x02\xff\xff\xff\xda", 1)
    assert refusal(meaningless) == "TOO_MANY_SCANS"  # what looks like a length of 64 KiB is none
    tables = bytes(range(200)) * 300  # 60 kB before each scan: the places differ within the windows
    assert refusal(many.replace(b"\xff\xda", jpeg((0xEF, tables))[2:] + b"\xff\xda")) == "TOO_MANY_SCANS"


def test_scans_of_a_second_image_and_of_a_thumbnail_do_not_count() -> None:
    scans = with_scans(64, 64, 150)
    assert read_header(scans + scans).width == 64
    assert read_header(scans[:2] + jpeg((0xE1, scans))[2:] + scans[2:]).width == 64


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 3), st.data())
def test_the_count_of_scans_is_exact_whatever_lies_between_them(num_windows: int, data: st.DataObject) -> None:
    """Stuffed bytes, restarts, fill and segments that contain markers, across the borders of the windows."""
    scan = jpeg((0xDA, b"\1\1\0\0\0\0"))[2:]
    pieces = [
        b"\xff\x00",
        b"\xff\xd3",
        b"\xff\xff\x00",
        b"\x12\xda",
        b"\xff\x01",
        b"\xff\x02\xff\xff",
        b"\xff\xbf\x00\x20",
        jpeg((0xFE, b"\xff\xda\xff\xd9"))[2:],
    ]
    parts = data.draw(st.lists(st.sampled_from([scan, *pieces]), max_size=60))
    filler = bytes(data.draw(st.integers(0, 20)) + num_windows * MARKER_WINDOW_BYTES - 30) if num_windows else b""
    file = jpeg((0xC2, frame(components=1))) + scan + filler + b"".join(parts) + b"\xff\xd9"
    num_scans = 1 + parts.count(scan)
    with mock.patch("manyview_server.image_header.jpeg.MAX_JPEG_SCANS", num_scans):
        assert read_header(file).width == 5
    with mock.patch("manyview_server.image_header.jpeg.MAX_JPEG_SCANS", num_scans - 1):
        assert refusal(file) == "TOO_MANY_SCANS"


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize(("width", "height", "quality"), [(16, 16, 30), (640, 480, 95), (2000, 1500, 75)])
def test_progressive_jpegs_as_pillow_writes_them_are_accepted(mode: str, width: int, height: int, quality: int) -> None:
    assert read_header(progressive(width, height, mode, quality=quality)).width == width


def test_the_largest_image_in_libjpegs_longest_script_is_accepted() -> None:
    """CMYK: 14 scans of one component, and two of all four."""
    scan = with_scans(7071, 7071, 1, 4)
    first, rest = scan.index(b"\xff\xc4"), scan.index(b"\xff\xd9")
    single = jpeg((0xDA, b"\1\1\0\0\0\0"))[2:] + b"\0"
    assert read_header(scan[:rest] + scan[first:rest] + single * 16 + b"\xff\xd9").width == 7071


def test_metadata_as_phones_and_photoshop_write_it_is_accepted() -> None:
    exif = with_orientation(6)
    plain = progressive(400, 300, "RGB", exif=exif, icc_profile=bytes(500_000), comment=b"made by hand")
    extended_xmp = b"".join(
        jpeg((0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000)))[2:] for _ in range(80)
    )
    photoshop = jpeg((0xED, b"Photoshop 3.0\x008BIM" + bytes(60_000)))[2:] * 3
    assert (read_header(plain[:2] + extended_xmp + photoshop + plain[2:]).width) == 300


def test_a_multi_picture_file_of_a_phone_is_accepted() -> None:
    pictures = [Image.effect_noise((320, 240), 30).convert("RGB") for _ in range(3)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "MPO", save_all=True, append_images=pictures[1:])
    assert read_header(buffer.getvalue()).width == 320


@pytest.mark.parametrize(
    "filler", [b"\xff\x00", b"\xff\xd0", b"\xff\xff", b"\x00\x00"], ids=lambda filler: filler.hex()
)
def test_a_scan_of_12_megabytes_is_searched_at_a_bounded_cost(filler: bytes) -> None:
    data = with_scans(8, 8, 1)[:-2] + filler * 6_000_000 + b"\xff\xd9"
    begin = time.process_time()
    assert read_header(data).width == 8
    assert time.process_time() - begin < 2.0
