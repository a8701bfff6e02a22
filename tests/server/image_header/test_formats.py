"""Known formats are recognized, and errors name the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from manyview._uploads.signatures import READ_FORMATS, image_format
from manyview_server.image_header import read_header, recognize
from manyview_server.image_header.formats import ALLOWED, READERS, SIGNATURES
from support.images.image_files import encoded, refusal, words

FORMATS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}
DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize(("file_format", "extension"), [*FORMATS.items(), ("AVIF", "avif"), ("PPM", "ppm")])
def test_each_format_is_recognized_by_its_first_bytes_alone(file_format: str, extension: str) -> None:
    data = encoded(40, 30, file_format)
    assert recognize(data[:32]) == read_header(data).extension == extension


def test_every_reader_has_a_signature_and_the_docs_show_all_of_them() -> None:
    assert {*SIGNATURES.values(), "webp", "avif"} == set(READERS)
    limits = (DOCS / "limits.md").read_text()
    for signature in SIGNATURES:
        shown = signature.decode() if signature.isalnum() else signature.hex(" ").upper()
        assert f"`{shown}`" in limits, shown
    for name in ALLOWED.replace(" and ", ", ").split(", "):
        assert f"| {name} |" in limits, name


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "no known image format"),
        (b"hello world", "68 65 6c 6c 6f"),
        (b"P5 1 1 255\n0", "P5"),
        (b"GIF90a....", "47 49 46"),
        (b"II+\0........", "BigTIFF"),
        (b"\0\0\0\x18ftypcrx ....", "CR3"),
        (b"\0\0\0\x14ftypqt  ....", "QuickTime"),
        (b"\0\0\0\x14ftypisom....", "video"),
        (b"8BPS\0\x01", "Photoshop"),
    ],
)
def test_other_formats_are_named_or_shown(data: bytes, part: str) -> None:
    reason, message = words(data)
    assert (reason, part in message) == ("FORMAT_NOT_ALLOWED", True), message


CLIENT_NAMES = {
    "jpg": "JPEG",
    "png": "PNG",
    "webp": "WebP",
    "gif": "GIF",
    "bmp": "BMP",
    "tif": "TIFF",
    "avif": "AVIF",
    "ppm": "PPM",
}


def test_the_client_and_the_server_agree_on_every_format() -> None:
    assert set(CLIENT_NAMES) == set(READERS)
    assert set(CLIENT_NAMES.values()) == set(READ_FORMATS)
    files = [encoded(40, 30, file_format) for file_format in (*FORMATS, "AVIF", "PPM", "ICO", "PCX")]
    brands = (b"avif", b"avis", b"mif1", b"msf1", b"heic", b"crx ", b"isom")
    boxes = [b"\0\0\0\x18ftyp" + brand + bytes(4) + b"mif1" + other for brand in brands for other in brands]
    for data in (*files, *boxes, b"II+\0....", b"GIF90a", b"P5 1 1 255 a", b"8BPS\0\x01", b"\xff\x0a...", b"text"):
        found = image_format(data[:512])
        extension = recognize(data[:512])
        assert (found if found in READ_FORMATS else None) == CLIENT_NAMES.get(extension or "")


@pytest.mark.parametrize(
    "brands", [b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1heic", b"hevc\0\0\0\0", b"msf1\0\0\0\0hevc"]
)
def test_heic_is_called_by_its_name_and_the_message_says_what_to_do(brands: bytes) -> None:
    reason, message = words((8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands)
    assert reason == "FORMAT_NOT_ALLOWED"
    for part in ("HEIC", "heif-convert", "pillow-heif"):
        assert part in message


def test_a_shared_brand_is_avif_if_a_compatible_brand_says_so() -> None:
    assert recognize(b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif") == "avif"
    assert recognize(b"\0\0\0\x14ftypmif1\0\0\0\0mif1avif") is None  # the box ends before that brand
    assert refusal(b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif") == "HEADER_CORRUPT"
