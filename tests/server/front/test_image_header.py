"""Headers of files that Pillow wrote, and of files that nobody honest would write."""

from __future__ import annotations

import io
import struct
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manyview_server.front.image_header import MAX_PARTS, HeaderRefused, ImageHeader, read_header

MODES = {"JPEG": ["RGB", "L", "CMYK"], "PNG": ["RGB", "L", "RGBA", "P", "1", "LA", "I;16"], "WEBP": ["RGB", "RGBA"]}
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "PPM": "ppm"}


def encoded(width: int, height: int, file_format: str = "PNG", mode: str = "RGB", **options: object) -> bytes:
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
    options: dict[str, object] = {} if file_format == "PPM" else {"exif": with_orientation(turn)}
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
    assert read_header(good) == ImageHeader(extension="ppm", width=2, height=3)
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


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff\xd0" * 6_000_000,
        encoded(2, 2)[:33] + png_chunk(b"tEXt", b"") * 1_000_000,
        b"RIFF\0\0\0\0WEBP" + b"JUNK\0\0\0\0" * 1_500_000,
        b"P6" + b"#\n" * 6_000_000,
    ],
    ids=["jpeg", "png", "webp", "ppm"],
)
def test_a_file_of_endless_parts_is_refused_at_a_bounded_cost(data: bytes) -> None:
    begin = time.process_time()
    assert refusal(data) == "HEADER_CORRUPT"
    assert time.process_time() - begin < 2.0
    assert MAX_PARTS < 100_000
