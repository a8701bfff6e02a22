"""The orientation in EXIF metadata: tag 0x0112 of EXIF 2.32, in a TIFF 6.0 directory."""

from __future__ import annotations

import struct


def exif_orientation(tiff: bytes) -> int:
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
