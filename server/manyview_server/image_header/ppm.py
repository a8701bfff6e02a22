"""The header of a binary PPM (Netpbm's ppm(5)) with maximum value 255."""

from __future__ import annotations

import re
from dataclasses import replace

from manyview_server.image_header.header import HeaderRefused, ImageHeader, corrupt, sized

MAX_PPM_HEADER_BYTES = 1 << 16
"""The most bytes before a PPM's pixels, its comments and blanks included."""

PPM = re.compile(rb"P6(?:\s|#[^\n]*\n)++(\d{1,9})(?:\s|#[^\n]*\n)++(\d{1,9})(?:\s|#[^\n]*\n)++(\d{1,9})\s")


def read_ppm(data: bytes) -> ImageHeader:
    """Read the header of a PPM. Raises HeaderRefused."""
    match = PPM.match(data[:MAX_PPM_HEADER_BYTES])
    if match is None:
        raise corrupt(f"PPM header is not 'P6 WIDTH HEIGHT 255' within {MAX_PPM_HEADER_BYTES:,} bytes")
    width, height, maximum = (int(field) for field in match.groups())
    if maximum != 255:
        raise HeaderRefused("FORMAT_NOT_ALLOWED", f"PPM with maximum value {maximum}; it must be 255")
    header = sized("ppm", width, height)
    num_bytes = len(data) - match.end()
    if num_bytes != 3 * width * height:
        raise corrupt(f"PPM of {width} x {height} pixels holds {num_bytes} bytes instead of {3 * width * height}")
    return replace(header, pixels_start=match.end())
