"""The formats of images, by their first bytes and the suffixes of their files."""

from __future__ import annotations

import re

HEAD_BYTES = 512
"""The number of bytes by which a format is recognized."""
READ_FORMATS = ("JPEG", "PNG", "WebP", "PPM", "BMP", "TIFF", "GIF", "AVIF")
"""The formats that servers read. An MPO is a JPEG that has further pictures behind the first one."""
SUFFIXES = frozenset(
    ("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "webp", "ppm", "bmp", "dib", "tif", "tiff", "gif", "avif")
)
"""A file with one of these suffixes, in lower case, is taken for an image without a look into it."""

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "BigTIFF"),
    (b"MM\x00+", "BigTIFF"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL \r\n", "JPEG XL"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x00\x0cjP  \r\n", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
    (b"gimp xcf", "GIMP"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"FUJIFILMCCD-RAW", "raw"),
    (b"IIRO", "raw"),
    (b"IIRS", "raw"),
    (b"IIU\x00", "raw"),
    (b"SIMPLE  =", "FITS"),
)
# Cameras write TIFF files with these suffixes. Their first picture is only a thumbnail.
_RAW_SUFFIXES = frozenset(
    ("3fr", "arw", "cr2", "dcr", "dng", "erf", "iiq", "kdc", "mos", "nef", "nrw", "pef", "raw", "sr2", "srw")
)
_BMP_HEADER_BYTES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_SHARED_BRANDS = frozenset({b"mif1", b"msf1"})
# HEIC and AVIF alike may begin with a shared brand. The brands that follow distinguish them.
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name in lower case, without its dot, or ""."""
    return name.rpartition(".")[2].lower() if "." in name else ""


def image_format(head: bytes, suffix: str = "") -> str | None:
    """Return the name of the format that an image of these first bytes has, or None if they belong to no image."""
    found = next((name for signature, name in _SIGNATURES if head.startswith(signature)), None)
    if found == "TIFF" and suffix in _RAW_SUFFIXES:
        return "raw"
    if found is not None:
        return found
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if re.match(rb"P[1-7Ff][\s#]", head):
        return "PPM" if head.startswith(b"P6") else "Netpbm"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADER_BYTES:
        return "BMP"
    if head[4:8] == b"ftyp":
        return _boxed(head)
    if head.startswith(b"\x00\x00\x01\x00") and suffix == "ico":
        return "ICO"
    if head[128:132] == b"DICM":
        return "DICOM"
    return "SVG" if head.lstrip().startswith(b"<") and b"<svg" in head else None


def _boxed(head: bytes) -> str | None:
    """Return the format of a file of boxes (ISO 14496-12), which its brands name. Most such files are films."""
    brand, end = head[8:12], min(len(head), int.from_bytes(head[:4], "big"))
    compatible = {head[at : at + 4] for at in range(16, end, 4)} if brand in _SHARED_BRANDS else set()
    if {brand, *compatible} & _AVIF_BRANDS:
        return "AVIF"
    if brand in _HEIC_BRANDS | _SHARED_BRANDS:
        return "HEIC"
    return "raw" if brand == b"crx " else None
