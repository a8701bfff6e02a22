"""Read an image's format, size and orientation, and bound what decoding it may cost. Nothing is decoded.

This is the only code that reads headers and orientations. The front uses it to refuse images, and the workers use it
to turn them, so a listed width and height are those that a job trains on.

Sources: JPEG, ITU-T T.81 annex B; orientation, EXIF 2.32 tag 0x0112 in a TIFF 6.0 directory; PNG, W3C third edition
(acTL and eXIf included); WebP, RFC 9649 and RFC 6386 section 9.1; PPM, Netpbm's ppm(5), binary with maximum value 255.

Every reader gets the whole file, never allocates by a size that the file claims, and looks at a bounded number of
parts.

Cost of a JPEG. A decoder visits every block of a component for every scan that names it, even where the scan holds no
data: 2,000 scans of 98 bytes each cost 33 CPU seconds at 7,000 x 7,000 pixels. The reader therefore limits the sum over
all scans of components x pixels. The limit allows 30 components at 50 megapixels, where libjpeg's own script has 14 for
color and 24 for CMYK. The worst file within it, made of refining scans, took 2.9 CPU seconds. An arithmetic decoder may
do much work for each pixel without reading a byte, so its visits count twelvefold.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

# Markers that start a frame, among those that the common decoders read: baseline, extended, progressive, and the
# arithmetic-coded pair.
JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
# Lossless, differential and hierarchical frames.
JPEG_FOREIGN_FRAMES = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF})
JPEG_ARITHMETIC_FRAMES = frozenset({0xC9, 0xCA})
JPEG_START, JPEG_END, JPEG_SCAN, JPEG_APP1 = 0xD8, 0xD9, 0xDA, 0xE1
# TEM and RST0 to RST7 stand alone, without a length.
JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
JPEG_FIRST_KNOWN = 0xC0
"""Below are markers without a meaning. A decoder that looks for a restart passes over them, without a length."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_BIT_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}

MAX_JPEG_PARTS = 20_000
"""The most segments and fill bytes of a JPEG. Pillow reads each in Python."""
MAX_JPEG_SCANS = 200
"""The most scans of a JPEG: usual ones have 1 to 14, and exotic scan scripts about 100."""
MAX_JPEG_VISITS = 1_500_000_000
"""The largest sum over a JPEG's scans of components x pixels."""
ARITHMETIC_FACTOR = 12
MAX_PNG_CHUNKS = 20_000
"""The most chunks of a PNG: 12 MiB in the 4 KiB chunks of some encoders are 3,072."""
MAX_PNG_SIDE_CHUNKS = 1_000
"""The most chunks of a PNG that hold no pixels, such as texts and profiles."""
MAX_WEBP_CHUNKS = 1_000
MAX_PPM_HEADER_BYTES = 1 << 16
"""The most bytes before a PPM's pixels, its comments and blanks included."""

MARKER_WINDOW_BYTES = 1 << 18
"""The number of bytes of a JPEG's scans that are searched for markers at a time."""

PPM = re.compile(rb"P6(?:\s|#[^\n]*\n)++(\d{1,9})(?:\s|#[^\n]*\n)++(\d{1,9})(?:\s|#[^\n]*\n)++(\d{1,9})\s")

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


class HeaderRefused(ValueError):
    """The header shows that the image must be refused. `reason` is one of the reasons of `ImageError`, and `str()` is a
    sentence for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """The format and size of an image."""

    extension: str
    """The format: "jpg", "png", "webp" or "ppm"."""
    width: int
    """Pixels, after the turn that `orientation` asks for. So is `height`."""
    height: int
    orientation: int = 1
    """The EXIF orientation, 1 to 8, by which the stored pixels must be turned."""
    pixels_start: int = 0
    """The position of the first pixel of a PPM, in bytes."""


def read_header(data: bytes) -> ImageHeader:
    """Read the header of an encoded image.

    Raises:
        HeaderRefused: FORMAT_NOT_ALLOWED, ANIMATED, HEADER_CORRUPT, or TOO_MANY_SCANS.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith(PNG_SIGNATURE):
        return _png(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith(b"P6"):
        return _ppm(data)
    raise HeaderRefused("FORMAT_NOT_ALLOWED", f"{_found(data)}; allowed are JPEG, PNG, WebP and binary PPM")


def _found(data: bytes) -> str:
    if data[4:8] == b"ftyp" and data[8:12] in FOREIGN_BRANDS:
        return f"this is {FOREIGN_BRANDS[data[8:12]]}"
    if re.match(rb"P[1-57Ff]\s", data):
        return f"this is a Netpbm image of type {data[:2].decode()}"
    name = next((name for magic, name in FOREIGN.items() if data.startswith(magic)), None)
    return f"this is {name}" if name else f"the first bytes {data[:8].hex(' ')} belong to no known image format"


def _corrupt(message: str) -> HeaderRefused:
    return HeaderRefused("HEADER_CORRUPT", message)


def _sized(extension: str, width: int, height: int, orientation: int = 1) -> ImageHeader:
    if width < 1 or height < 1:
        raise _corrupt(f"{extension} header states {width} x {height} pixels")
    if orientation >= 5:  # 5 to 8 turn by a quarter
        width, height = height, width
    return ImageHeader(extension=extension, width=width, height=height, orientation=orientation)


# ---- JPEG ----


def _jpeg(data: bytes) -> ImageHeader:
    orientation: int | None = None
    header: ImageHeader | None = None
    frame = 0
    for marker, at, segment in _jpeg_segments(data):
        if marker in JPEG_FRAMES and header is None:
            header, frame = _jpeg_frame(segment, orientation or 1), marker
        elif marker in JPEG_FOREIGN_FRAMES:
            raise HeaderRefused(
                "FORMAT_NOT_ALLOWED", f"lossless or hierarchical JPEG (SOF{marker - 0xC0}); such JPEGs are not allowed"
            )
        elif marker in (JPEG_SCAN, JPEG_END):
            if header is not None:
                _check_scans(data, at, header.width * header.height, frame)
            break
        elif marker == JPEG_APP1 and segment[:6] == b"Exif\x00\x00" and orientation is None:
            orientation = _exif_orientation(segment[6:])
    if header is None:
        raise _corrupt("JPEG ends before its frame header")
    return header


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (marker, place, payload) of each segment up to the first scan."""
    at = 2
    for _ in range(MAX_JPEG_PARTS):
        if at + 4 > len(data):
            return
        if data[at] != 0xFF:
            raise _corrupt(f"JPEG has no marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in JPEG_BARE:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at + 4 : at + 2 + length]
        if length < 2 or len(segment) != length - 2:
            raise _corrupt(f"JPEG segment at byte {at} is cut off")
        yield marker, at, segment
        at += 2 + length
    raise _too_many_segments()


def _too_many_segments() -> HeaderRefused:
    return _corrupt(f"JPEG has more than {MAX_JPEG_PARTS:,} segments and fill bytes")


def _jpeg_frame(segment: bytes, orientation: int) -> ImageHeader:
    if len(segment) < 6:
        raise _corrupt("JPEG frame header is too short")
    precision, height, width, num_components = struct.unpack_from(">BHHB", segment)
    if precision != 8:
        raise HeaderRefused("FORMAT_NOT_ALLOWED", f"JPEG with {precision} bits per sample; it must have 8")
    if num_components not in (1, 3, 4) or len(segment) != 6 + 3 * num_components:
        raise _corrupt(f"JPEG frame header of {len(segment)} bytes names {num_components} components")
    return _sized("jpg", width, height, orientation)


def _check_scans(data: bytes, at: int, num_pixels: int, frame: int) -> None:
    """Count the scans, the first of which is at byte `at`, and the pixels that a decoder would visit in them.

    A truncated file ends the count without an error, because only decoding shows the truncation.
    """
    num_scans, num_visits = 0, 0
    for marker, place in _markers_from(data, at):
        if marker != JPEG_SCAN:
            continue
        num_scans += 1
        num_components = min(4, max(1, data[place + 4])) if place + 4 < len(data) else 1
        num_visits += num_components * num_pixels * (ARITHMETIC_FACTOR if frame in JPEG_ARITHMETIC_FRAMES else 1)
        if num_scans > MAX_JPEG_SCANS:
            raise HeaderRefused(
                "TOO_MANY_SCANS", f"JPEG has more than {MAX_JPEG_SCANS} scans; at most {MAX_JPEG_SCANS} are allowed"
            )
        # Every image has at least one scan, and the limit of its pixels bounds the cost of that one.
        if num_scans > 1 and num_visits > MAX_JPEG_VISITS:
            counted = f"the first {num_scans} scans of the JPEG make a decoder visit {num_visits:,} pixels"
            raise HeaderRefused("TOO_MANY_SCANS", f"{counted}; at most {MAX_JPEG_VISITS:,} are allowed")


def _markers_from(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Yield (marker, place) from byte `at` to the end of the image as a decoder meets them, restarts left out."""
    num_parts = 0
    for start in range(at, len(data) - 1, MARKER_WINDOW_BYTES):
        places = _marker_places(data, start)
        while (index := int(np.searchsorted(places, at))) < len(places):  # those before `at` lie within a segment
            place = int(places[index])
            marker = data[place + 1]
            if marker in (JPEG_START, JPEG_END):
                return
            num_parts += 1
            if num_parts > MAX_JPEG_PARTS:
                raise _too_many_segments()
            yield marker, place
            at = place + 2
            if marker >= JPEG_FIRST_KNOWN and marker not in JPEG_BARE:
                at += int.from_bytes(data[place + 2 : place + 4], "big")


def _marker_places(data: bytes, start: int) -> npt.NDArray[np.int64]:
    """Return the places in a window that hold a marker which is neither stuffed, nor fill, nor a restart."""
    window = np.frombuffer(data[start : start + MARKER_WINDOW_BYTES + 1], np.uint8)
    first, second = window[:-1], window[1:]
    found = (first == 0xFF) & (second != 0xFF) & (second != 0x00) & (second & 0xF8 != 0xD0)
    return start + np.flatnonzero(found)


def _exif_orientation(tiff: bytes) -> int:
    """Return 1 to 8. Damaged metadata counts as 1: the pixels are fine without it."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return 1
    start = struct.unpack_from(order + "I", tiff, 4)[0]
    if start + 2 > len(tiff):
        return 1
    num_entries = struct.unpack_from(order + "H", tiff, start)[0]
    for at in range(start + 2, min(start + 2 + 12 * num_entries, len(tiff) - 11), 12):
        tag, kind, count, value = struct.unpack_from(order + "HHIH", tiff, at)
        if tag == 0x0112:
            return value if kind == 3 and count == 1 and 1 <= value <= 8 else 1
    return 1


# ---- PNG ----


def _png(data: bytes) -> ImageHeader:
    if data[8:16] != b"\x00\x00\x00\x0dIHDR" or len(data) < 33:
        raise _corrupt("PNG does not start with a complete IHDR chunk")
    if zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
        raise _corrupt("PNG header does not match its checksum")
    width, height, depth, color, compression, filtering, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    if depth not in PNG_BIT_DEPTHS.get(color, ()) or compression or filtering or interlace > 1:
        raise _corrupt(f"PNG header states color type {color} with {depth} bits, interlace {interlace}")
    orientation: int | None = None
    has_pixels, num_side_chunks = False, 0
    for name, start, length in _png_chunks(data):
        if name == b"acTL" and not has_pixels:
            _refuse_animated_png(data[start : start + length])
        has_pixels = has_pixels or name == b"IDAT"
        num_side_chunks += name != b"IDAT"
        if num_side_chunks > MAX_PNG_SIDE_CHUNKS:
            raise _corrupt(f"PNG has more than {MAX_PNG_SIDE_CHUNKS:,} chunks that hold no pixels")
        if name == b"eXIf" and orientation is None:
            orientation = _exif_orientation(data[start : start + length])
    if not has_pixels:
        raise _corrupt("PNG ends before its pixels")
    return _sized("png", width, height, orientation or 1)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, length) of each chunk after IHDR. The last chunk may be cut off."""
    at = 33
    for _ in range(MAX_PNG_CHUNKS):
        if at + 8 > len(data):
            return
        length, name = struct.unpack_from(">I4s", data, at)
        yield name, at + 8, length
        if name == b"IEND":
            return
        at += 12 + length
    raise _corrupt(f"PNG has more than {MAX_PNG_CHUNKS:,} chunks")


def _refuse_animated_png(chunk: bytes) -> None:
    if len(chunk) != 8:
        raise _corrupt("PNG has a damaged acTL chunk")
    num_frames = int.from_bytes(chunk[:4], "big")
    if num_frames > 1:
        raise HeaderRefused(
            "ANIMATED", f"animated PNG with {num_frames} frames; send each frame as an image of its own"
        )


# ---- WebP ----


def _webp(data: bytes) -> ImageHeader:
    canvas: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    orientation: int | None = None
    for name, start, length in _webp_chunks(data):
        payload = data[start : start + min(length, 1 << 16)]
        if name == b"VP8X":
            canvas = _webp_canvas(payload)
        elif name in (b"ANIM", b"ANMF"):
            raise HeaderRefused("ANIMATED", "animated WebP; send each frame as an image of its own")
        elif name == b"VP8 " and size is None:
            size = _webp_lossy(payload)
        elif name == b"VP8L" and size is None:
            size = _webp_lossless(payload)
        elif name == b"EXIF" and orientation is None:
            orientation = _exif_orientation(payload.removeprefix(b"Exif\x00\x00"))
        if size is not None and canvas is None:
            break  # the simple file format: one chunk
    if size is None:
        raise _corrupt("WebP ends before its pixels")
    if canvas is not None and canvas != size:
        raise _corrupt(f"WebP canvas of {canvas[0]} x {canvas[1]} holds an image of {size[0]} x {size[1]} pixels")
    return _sized("webp", *size, orientation or 1)


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = 12
    for _ in range(MAX_WEBP_CHUNKS):
        if at + 8 > len(data):
            return
        name, length = struct.unpack_from("<4sI", data, at)
        yield name, at + 8, length
        at += 8 + length + length % 2
    raise _corrupt(f"WebP has more than {MAX_WEBP_CHUNKS:,} chunks")


def _webp_canvas(payload: bytes) -> tuple[int, int]:
    if len(payload) < 10:
        raise _corrupt("WebP canvas header is cut off")
    if payload[0] & 0x02:
        raise HeaderRefused("ANIMATED", "animated WebP; send each frame as an image of its own")
    return 1 + int.from_bytes(payload[4:7], "little"), 1 + int.from_bytes(payload[7:10], "little")


def _webp_lossy(payload: bytes) -> tuple[int, int]:
    if len(payload) < 10 or payload[0] & 1 or payload[3:6] != b"\x9d\x01\x2a":
        raise _corrupt("WebP has no VP8 key frame")
    width, height = struct.unpack_from("<HH", payload, 6)
    return width & 0x3FFF, height & 0x3FFF  # the upper two bits ask for upscaling, which no decoder does


def _webp_lossless(payload: bytes) -> tuple[int, int]:
    if len(payload) < 5 or payload[0] != 0x2F or payload[4] >> 5:
        raise _corrupt("WebP has no VP8L header")
    bits = int.from_bytes(payload[1:5], "little")
    return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)


# ---- PPM ----


def _ppm(data: bytes) -> ImageHeader:
    match = PPM.match(data[:MAX_PPM_HEADER_BYTES])
    if match is None:
        raise _corrupt(f"PPM header is not 'P6 WIDTH HEIGHT 255' within {MAX_PPM_HEADER_BYTES:,} bytes")
    width, height, maximum = (int(field) for field in match.groups())
    if maximum != 255:
        raise HeaderRefused("FORMAT_NOT_ALLOWED", f"PPM with maximum value {maximum}; it must be 255")
    header = _sized("ppm", width, height)
    num_bytes = len(data) - match.end()
    if num_bytes != 3 * width * height:
        raise _corrupt(f"PPM of {width} x {height} pixels holds {num_bytes} bytes instead of {3 * width * height}")
    return replace(header, pixels_start=match.end())
