"""Recognize the format of an image by its first bytes, and read its header if the format is allowed."""

from __future__ import annotations

import re

from manyview_server.image_header.header import HeaderRefused, ImageHeader
from manyview_server.image_header.jpeg import read_jpeg
from manyview_server.image_header.png import PNG_SIGNATURE, read_png
from manyview_server.image_header.ppm import read_ppm
from manyview_server.image_header.webp import read_webp

# These formats are only known to name them in an error.
FOREIGN = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"\x00\x00\x01\x00": "ICO",
    b"%PDF": "PDF",
    b"8BPS": "Photoshop",
    b"\xff\x0a": "JPEG XL",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"<svg": "SVG",
    b"<?xml": "XML",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "gzip",
}
FOREIGN_BRANDS = {b"avif": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF"}


def read_header(data: bytes) -> ImageHeader:
    """Read the header of an encoded image.

    Raises:
        HeaderRefused: FORMAT_NOT_ALLOWED, ANIMATED, HEADER_CORRUPT, or TOO_MANY_SCANS.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return read_jpeg(data)
    if data.startswith(PNG_SIGNATURE):
        return read_png(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return read_webp(data)
    if data.startswith(b"P6"):
        return read_ppm(data)
    raise HeaderRefused("FORMAT_NOT_ALLOWED", f"{_found(data)}; allowed are JPEG, PNG, WebP and binary PPM")


def _found(data: bytes) -> str:
    if data[4:8] == b"ftyp" and data[8:12] in FOREIGN_BRANDS:
        return f"this is {FOREIGN_BRANDS[data[8:12]]}"
    if re.match(rb"P[1-57Ff]\s", data):
        return f"this is a Netpbm image of type {data[:2].decode()}"
    name = next((name for magic, name in FOREIGN.items() if data.startswith(magic)), None)
    return f"this is {name}" if name else f"the first bytes {data[:8].hex(' ')} belong to no known image format"
