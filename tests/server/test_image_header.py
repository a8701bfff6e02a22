"""Headers of files that Pillow wrote, and of files that nobody honest would write."""

from __future__ import annotations

import io
import struct
import time
import zlib
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manyview_server.image_header import HeaderRefused, ImageHeader, read_header
from manyview_server.image_header.jpeg import (
    MARKER_WINDOW_BYTES,
    MAX_JPEG_SCANS,
    MAX_JPEG_VISITS,
)

MODES = {"JPEG": ["RGB", "L", "CMYK"], "PNG": ["RGB", "L", "RGBA", "P", "1", "LA", "I;16"], "WEBP": ["RGB", "RGBA"]}
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "PPM": "ppm"}


def encoded(width: int, height: int, file_format: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, file_format, **options)
    return buffer.getvalue()


def with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def read_or_reason(data: bytes) -> ImageHeader | str:
    try:
        return read_header(data)
    except HeaderRefused as error:
        return error.reason


def refusal(data: bytes) -> str:
    with pytest.raises(HeaderRefused) as caught:
        read_header(data)
    assert str(caught.value)
    return caught.value.reason


def png_chunk(name: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))


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


def test_animated_png_is_refused_and_a_single_frame_is_not() -> None:
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 100, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    assert refusal(buffer.getvalue()) == "ANIMATED"
    plain = encoded(8, 8)
    single = plain[:33] + png_chunk(b"acTL", struct.pack(">II", 1, 0)) + plain[33:]
    assert read_header(single).width == 8
    assert refusal(plain[:33] + png_chunk(b"acTL", b"\0") + plain[33:]) == "HEADER_CORRUPT"


def test_animated_webp_is_refused_with_and_without_its_flag() -> None:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 200)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    data = bytearray(buffer.getvalue())
    assert refusal(bytes(data)) == "ANIMATED"
    data[20] &= ~0x02
    assert refusal(bytes(data)) == "ANIMATED"


def test_a_webp_canvas_that_differs_from_its_image_is_corrupt() -> None:
    data = bytearray(encoded(40, 30, "WEBP", exif=with_orientation(1)))
    assert data[12:16] == b"VP8X"
    data[24:27] = (9).to_bytes(3, "little")
    assert refusal(bytes(data)) == "HEADER_CORRUPT"


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


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    body = b"".join(b"\xff" + bytes([marker]) + struct.pack(">H", len(p) + 2) + p for marker, p in segments)
    return b"\xff\xd8" + body


def frame(width: int = 5, height: int = 7, precision: int = 8, components: int = 3) -> bytes:
    return struct.pack(">BHHB", precision, height, width, components) + b"\0\0\0" * components


def test_jpeg_markers_are_walked_past_fill_bytes_and_tables() -> None:
    data = jpeg((0xC4, b"table"), (0xDB, b"\xff\xc0 looks like a frame"), (0xC2, frame()))
    padded = data[:2] + b"\xff\xff\xff" + data[2:]
    assert (read_header(padded).width, read_header(padded).height) == (5, 7)


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


def test_ppm_takes_comments_and_wants_exactly_its_pixels() -> None:
    good = b"P6 # made by hand\n2 # width\n 3\n255\n" + bytes(18)
    assert read_header(good) == ImageHeader(extension="ppm", width=2, height=3, pixels_start=35)
    assert refusal(good + b"\0") == "HEADER_CORRUPT"
    assert refusal(good[:-1]) == "HEADER_CORRUPT"
    assert refusal(b"P6 2 3 65535\n" + bytes(36)) == "FORMAT_NOT_ALLOWED"
    assert refusal(b"P6 0 3 255\n") == "HEADER_CORRUPT"
    assert refusal(b"P6 9999999999 1 255\n") == "HEADER_CORRUPT"


@pytest.mark.parametrize(
    "data", [b"GIF89a....", b"BM12345", b"", b"\x00", b"II*\0....", b"P5 1 1 255\n0", b"hello world"]
)
def test_other_formats_are_named_or_shown(data: bytes) -> None:
    assert refusal(data) == "FORMAT_NOT_ALLOWED"


def test_heic_is_called_by_its_name() -> None:
    with pytest.raises(HeaderRefused, match="HEIC"):
        read_header(b"\0\0\0\x18ftypheic\0\0\0\0")


def progressive(width: int, height: int, mode: str = "L", **options: Any) -> bytes:
    buffer = io.BytesIO()
    noise = Image.effect_noise((width, height), 40).convert(mode)
    noise.save(buffer, "JPEG", progressive=True, **options)
    return buffer.getvalue()


def with_scans(width: int, height: int, num_scans: int, num_components: int = 1, kind: int = 0xC2) -> bytes:
    """A JPEG of scans that hold next to nothing, which decoders nevertheless carry out over the whole image."""
    scan = bytes([num_components]) + b"".join(bytes([i + 1, 0]) for i in range(num_components)) + b"\x00\x00\x00"
    scans = (jpeg((0xC4, b"\0" + b"\1" + bytes(15) + b"\0"), (0xDA, scan))[2:] + b"\x00") * num_scans
    return jpeg((kind, frame(width, height, components=num_components))) + scans + b"\xff\xd9"


def words(data: bytes) -> tuple[str, str]:
    with pytest.raises(HeaderRefused) as caught:
        read_header(data)
    return caught.value.reason, str(caught.value)


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


def test_a_png_of_many_small_pixel_chunks_is_accepted_and_one_of_many_other_chunks_is_not() -> None:
    header, end = encoded(8, 8)[:33], png_chunk(b"IEND", b"")
    assert read_header(header + png_chunk(b"IDAT", bytes(4096)) * 3_072 + end).width == 8
    assert read_header(header + png_chunk(b"tEXt", b"k\0v") * 900 + png_chunk(b"IDAT", b"") + end).width == 8
    reason, message = words(header + png_chunk(b"tEXt", b"k\0v") * 1_001 + png_chunk(b"IDAT", b"") + end)
    assert (reason, "1,000" in message) == ("HEADER_CORRUPT", True)
    reason, message = words(header + png_chunk(b"IDAT", b"") * 20_001)
    assert (reason, "20,000" in message) == ("HEADER_CORRUPT", True)


def test_a_webp_of_many_chunks_and_a_ppm_of_many_comments_are_refused_with_their_limits() -> None:
    extended = encoded(8, 8, "WEBP", exif=with_orientation(1))
    reason, message = words(extended + b"JUNK\0\0\0\0" * 1_000)
    assert (reason, "1,000" in message) == ("HEADER_CORRUPT", True)
    assert read_header(extended + b"JUNK\0\0\0\0" * 900).width == 8
    comment = b"#" + bytes(99) + b"\n"
    assert read_header(b"P6\n" + comment * 500 + b"1 1\n255\n\0\0\0").width == 1
    reason, message = words(b"P6\n" + comment * 700 + b"1 1\n255\n\0\0\0")
    assert (reason, "65,536" in message) == ("HEADER_CORRUPT", True)


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


@pytest.mark.parametrize(
    "filler", [b"\xff\x00", b"\xff\xd0", b"\xff\xff", b"\x00\x00"], ids=lambda filler: filler.hex()
)
def test_a_scan_of_12_megabytes_is_searched_at_a_bounded_cost(filler: bytes) -> None:
    data = with_scans(8, 8, 1)[:-2] + filler * 6_000_000 + b"\xff\xd9"
    begin = time.process_time()
    assert read_header(data).width == 8
    assert time.process_time() - begin < 2.0
