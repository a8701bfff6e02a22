"""The header of a BMP (Microsoft's BITMAPCOREHEADER, BITMAPINFOHEADER and its longer versions)."""

from __future__ import annotations

import struct

from manyview_server.image_header.header import HeaderRefused, ImageHeader, corrupt, sized

CORE_HEADER_BYTES = 12
INFO_HEADER_BYTES = frozenset({40, 52, 56, 64, 108, 124})

UNCOMPRESSED, RLE8, RLE4, BIT_FIELDS = 0, 1, 2, 3
DEPTHS = {
    UNCOMPRESSED: frozenset({1, 4, 8, 16, 24, 32}),
    RLE8: frozenset({8}),
    RLE4: frozenset({4}),
    BIT_FIELDS: frozenset({16, 24, 32}),
}
"""The bits per pixel that are allowed with each compression."""

MAX_RLE_PIXELS = 4_000_000
MAX_RLE_BYTES = 2 << 20
"""The largest file with run lengths. Pillow reads each run in Python."""


def read_bmp(data: bytes) -> ImageHeader:
    """Read the header of a BMP. Raises HeaderRefused."""
    if len(data) < 26:
        raise corrupt("BMP header is cut off")
    header_bytes = int.from_bytes(data[14:18], "little")
    if header_bytes == CORE_HEADER_BYTES:
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
        compression = UNCOMPRESSED
    elif header_bytes in INFO_HEADER_BYTES and len(data) >= 14 + header_bytes:
        width, height, _, depth, compression = struct.unpack_from("<IIHHI", data, 18)
        if height >> 24 == 0xFF:  # negative: the first row is the top one
            height = (1 << 32) - height
    else:
        raise corrupt(f"BMP states a header of {header_bytes} bytes, which is unknown or cut off")
    if depth not in DEPTHS.get(compression, ()):
        kind = f"BMP with {depth} bits per pixel and compression {compression}"
        raise HeaderRefused("FORMAT_NOT_ALLOWED", f"{kind}; save it as an uncompressed BMP or as PNG")
    header = sized("bmp", width, height)
    if compression in (RLE8, RLE4):
        _check_runs(data, width * height)
    else:
        _check_length(data, width, height, depth, 14 + header_bytes)
    return header


def _check_runs(data: bytes, num_pixels: int) -> None:
    if num_pixels > MAX_RLE_PIXELS or len(data) > MAX_RLE_BYTES:
        found = f"run-length coded BMP of {num_pixels:,} pixels and {len(data):,} bytes"
        raise HeaderRefused(
            "FORMAT_NOT_ALLOWED",
            f"{found}; it may have {MAX_RLE_PIXELS:,} pixels and {MAX_RLE_BYTES:,} bytes: save it as PNG",
        )


def _check_length(data: bytes, width: int, height: int, depth: int, headers_end: int) -> None:
    """Check that all rows are there. The last one may lack the bytes that pad it to a multiple of four."""
    row_bytes = (width * depth + 31) // 32 * 4
    needed = row_bytes * (height - 1) + (width * depth + 7) // 8
    start = int.from_bytes(data[10:14], "little") or headers_end
    held = max(0, len(data) - start)
    if held < needed:
        raise corrupt(f"BMP of {width} x {height} pixels holds {held:,} bytes of pixels instead of {needed:,}")
