"""The header of a JPEG (ITU-T T.81 annex B), and a limit on what its scans may cost.

A decoder visits every block of a component for every scan that names it, even if the scan holds no data: 2,000 scans of
98 bytes each cost 33 CPU seconds at 7,000 x 7,000 pixels. The reader therefore limits the sum over all scans of
components x pixels. The limit allows 30 components at 50 megapixels, where libjpeg's own script has 14 for
color and 24 for CMYK. The worst file within it, made of refining scans, took 2.9 CPU seconds. An arithmetic decoder may
do much work for each pixel without reading a byte, so its visits count twelvefold.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import replace

from manyview_server.image_header.exif import exif_orientation
from manyview_server.image_header.header import HeaderRefused, ImageHeader, corrupt, sized

# Markers that start a frame, among those that the common decoders read: baseline, extended, progressive, and the
# arithmetic-coded pair.
JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
# Lossless, differential and hierarchical frames.
JPEG_FOREIGN_FRAMES = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF})
JPEG_ARITHMETIC_FRAMES = frozenset({0xC9, 0xCA})
JPEG_START, JPEG_END, JPEG_SCAN, JPEG_APP1, JPEG_APP2 = 0xD8, 0xD9, 0xDA, 0xE1, 0xE2
# TEM and RST0 to RST7 have no length and no payload.
JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
JPEG_STUFFED = 0x00
"""This is no marker: 0xFF is data, here data that does not belong there."""
JPEG_FIRST_KNOWN = 0xC0
"""Markers below this one have no meaning. A decoder that looks for a restart skips them; they have no length."""

JPEG_PROFILE = b"ICC_PROFILE\x00"
JPEG_PROFILE_START = len(JPEG_PROFILE) + 2
"""The number of a part, the number of all parts, and the bytes of the profile follow the name of the segment."""

MAX_JPEG_PARTS = 20_000
"""The most segments, fill bytes and bytes that belong to no segment of a JPEG. Pillow reads each in Python."""
MAX_JPEG_SCANS = 200
"""The most scans of a JPEG: usual ones have 1 to 14, and exotic scan scripts about 100."""
MAX_JPEG_VISITS = 1_500_000_000
"""The largest sum over a JPEG's scans of components x pixels."""
ARITHMETIC_FACTOR = 12
MARKER_WINDOW_BYTES = 1 << 18
"""The number of bytes of a JPEG's scans that are searched for markers at a time. The search holds the interpreter: at
most 2 ms for a window of nothing but 0xFF."""
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""A marker that is neither stuffed, nor a restart, nor fill."""


def read_jpeg(data: bytes) -> ImageHeader:
    """Read the header of a JPEG. Raises HeaderRefused."""
    orientation: int | None = None
    header: ImageHeader | None = None
    frame = 0
    profile: dict[int, bytes] = {}  # its parts, by their numbers
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
            orientation = exif_orientation(segment[6:])
        elif marker == JPEG_APP2 and segment.startswith(JPEG_PROFILE) and len(segment) > JPEG_PROFILE_START:
            profile[segment[len(JPEG_PROFILE)]] = segment[JPEG_PROFILE_START:]
    if header is None:
        raise corrupt("JPEG ends before its frame header")
    return replace(header, profile=b"".join(profile[number] for number in sorted(profile))) if profile else header


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (marker, place, payload) of each segment up to the first scan."""
    at = 2
    for _ in range(MAX_JPEG_PARTS):
        if at + 4 > len(data):
            return
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:  # a byte that does not belong there, which decoders skip, or a fill byte
            at += 1
            continue
        if marker == JPEG_STUFFED or marker in JPEG_BARE:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at + 4 : at + 2 + length]
        if length < 2 or len(segment) != length - 2:
            raise corrupt(f"JPEG segment at byte {at} is cut off")
        yield marker, at, segment
        at += 2 + length
    raise _too_many_segments()


def _too_many_segments() -> HeaderRefused:
    return corrupt(f"JPEG has more than {MAX_JPEG_PARTS:,} segments and bytes between them")


def _jpeg_frame(segment: bytes, orientation: int) -> ImageHeader:
    if len(segment) < 6:
        raise corrupt("JPEG frame header is too short")
    precision, height, width, num_components = struct.unpack_from(">BHHB", segment)
    if precision != 8:
        raise HeaderRefused("FORMAT_NOT_ALLOWED", f"JPEG with {precision} bits per sample; it must have 8")
    if num_components not in (1, 3, 4) or len(segment) != 6 + 3 * num_components:
        raise corrupt(f"JPEG frame header of {len(segment)} bytes states {num_components} as the number of components")
    return sized("jpg", width, height, orientation)


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
    while at < len(data) - 1:
        end = at + MARKER_WINDOW_BYTES
        found = MARKER.search(data, at, end + 1)  # the code of a marker may follow the window
        if found is None:
            at = end
            continue
        place = found.start()
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
