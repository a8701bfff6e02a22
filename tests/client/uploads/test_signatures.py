"""The formats that the client recognizes are those that the server reads."""

import io

import pytest
from PIL import Image

from manyview._uploads.signatures import HEAD_BYTES, READ_FORMATS, SUFFIXES, image_format, suffix_of
from manyview_server.image_header.formats import FOREIGN, READERS, SIGNATURES, recognize


def saved(file_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 60)).save(buffer, file_format)
    return buffer.getvalue()


@pytest.mark.parametrize("name", READ_FORMATS)
def test_a_format_that_the_client_takes_is_read_by_the_server_and_known_by_its_usual_suffixes(name: str) -> None:
    assert image_format(saved(name)[:HEAD_BYTES]) == name
    assert recognize(saved(name)) is not None
    assert {suffix for suffix, kind in Image.registered_extensions().items() if kind == name.upper()} & {
        f".{suffix}" for suffix in SUFFIXES
    }


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", None),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"8BPS\0\1", "Photoshop"),
        (b"P5 4 4 255\n", "Netpbm"),
        (b'<?xml version="1.0"?>\n<svg>', "SVG"),
        (b"BMW builds cars", None),
        (b"P6 is a city's district", "PPM"),
        (b"\0\0\1\0\2\0", None),
        (b"PK\3\4", None),
        (b"", None),
    ],
)
def test_other_images_are_named_and_everything_else_is_none(head: bytes, name: str | None) -> None:
    assert image_format(head) == name


def test_each_format_that_the_server_reads_is_taken() -> None:
    assert len(READERS) == len(READ_FORMATS)
    bmp = saved("BMP")[2:HEAD_BYTES]
    for signature in SIGNATURES:
        head = signature + (bmp if signature == b"BM" else b" 8 8 255 ")
        assert image_format(head) in READ_FORMATS, signature
    for signature in FOREIGN:
        assert image_format(signature + bytes(HEAD_BYTES)) not in READ_FORMATS, signature


def test_a_raw_photograph_is_no_tiff_although_it_begins_like_one() -> None:
    tiff = saved("TIFF")[:HEAD_BYTES]
    assert [image_format(tiff, suffix) for suffix in ("tif", "", "nef")] == ["TIFF", "TIFF", "raw"]
    assert "raw" not in READ_FORMATS


def test_the_suffix_is_what_follows_the_last_dot() -> None:
    assert [suffix_of(name) for name in ("a.b.JPG", "a/b.c/d.Png", "none")] == ["jpg", "png", ""]
