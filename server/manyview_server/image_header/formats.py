"""Recognize the format of an image by its first bytes, and read its header if the format is allowed.

The client has a list of its own (`manyview._uploads.signatures`), by which it finds the images of a folder. A test
compares the two, and docs/limits.md shows the signatures. Change all three together.
"""

from __future__ import annotations

import re

from manyview_server.image_header.avif import read_avif
from manyview_server.image_header.bmp import read_bmp
from manyview_server.image_header.gif import GIF_SIGNATURES, read_gif
from manyview_server.image_header.header import HeaderRefused, ImageHeader
from manyview_server.image_header.jpeg import read_jpeg
from manyview_server.image_header.png import PNG_SIGNATURE, read_png
from manyview_server.image_header.ppm import read_ppm
from manyview_server.image_header.tiff import TIFF_BYTE_ORDERS, read_tiff
from manyview_server.image_header.webp import read_webp

READERS = {
    "jpg": read_jpeg,
    "png": read_png,
    "webp": read_webp,
    "gif": read_gif,
    "bmp": read_bmp,
    "tif": read_tiff,
    "avif": read_avif,
    "ppm": read_ppm,
}
ALLOWED = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF and binary PPM"

SIGNATURES = {
    b"\xff\xd8\xff": "jpg",
    PNG_SIGNATURE: "png",
    **dict.fromkeys(GIF_SIGNATURES, "gif"),
    **dict.fromkeys(TIFF_BYTE_ORDERS, "tif"),
    b"BM": "bmp",
    b"P6": "ppm",
}
"""The first bytes of each format that has a fixed beginning. WebP and AVIF name themselves a few bytes later."""
AVIF_BRANDS = (b"avif", b"avis")
SHARED_BRANDS = (b"mif1", b"msf1")
"""Brands of AVIF and HEIC alike. The compatible brands, which follow, distinguish them."""

# These formats are only known to name them in an error.
FOREIGN = {
    b"\x00\x00\x01\x00": "ICO",
    b"%PDF": "PDF",
    b"8BPS": "Photoshop",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"II+\x00": "BigTIFF",
    b"MM\x00+": "BigTIFF",
    b"IIRO": "a raw photograph (ORF)",
    b"IIU\x00": "a raw photograph (RW2)",
    b"FUJIFILM": "a raw photograph (RAF)",
    b"<svg": "SVG",
    b"<?xml": "XML",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "gzip",
}
HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", *SHARED_BRANDS})
HEIC_HINT = (
    "this is HEIC, which the server does not read. Convert it to JPEG (heif-convert of libheif, or sips on a Mac), "
    "or install pillow-heif where the client runs and upload PIL images"
)
FOREIGN_BRANDS = {b"crx ": "a raw photograph (CR3)", b"qt  ": "a QuickTime video"}


def read_header(data: bytes) -> ImageHeader:
    """Read the header of an encoded image.

    Raises:
        HeaderRefused: FORMAT_NOT_ALLOWED, HEADER_CORRUPT, or TOO_MANY_SCANS.
    """
    extension = recognize(data)
    if extension is None:
        raise HeaderRefused("FORMAT_NOT_ALLOWED", f"{_found(data)}; allowed are {ALLOWED}")
    return READERS[extension](data)


def recognize(data: bytes) -> str | None:
    """Return the format by the first bytes, as `ImageHeader.extension` names it, or None if it is not allowed."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return "avif" if _is_avif(data) else None
    return next((extension for signature, extension in SIGNATURES.items() if data.startswith(signature)), None)


def _is_avif(data: bytes) -> bool:
    brand = data[8:12]
    if brand in SHARED_BRANDS:
        compatible = data[16 : min(256, int.from_bytes(data[:4], "big"))]
        return any(compatible[at : at + 4] in AVIF_BRANDS for at in range(0, len(compatible), 4))
    return brand in AVIF_BRANDS


def _found(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        if data[8:12] in HEIC_BRANDS:
            return HEIC_HINT
        return f"this is {FOREIGN_BRANDS.get(data[8:12], 'a video or another file of the MP4 family')}"
    if re.match(rb"P[1-57Ff]\s", data):
        return f"this is a Netpbm image of type {data[:2].decode()}"
    name = next((name for magic, name in FOREIGN.items() if data.startswith(magic)), None)
    return f"this is {name}" if name else f"the first bytes {data[:8].hex(' ')} belong to no known image format"
