"""Damaged files that every viewer shows: make Pillow read them, and measure what a JPEG has lost.

libjpeg fills what is missing at the end of a JPEG with gray. A progressive JPEG that lost its last scans lacks detail
and no pixels.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from manyview_server.image_header.png import PNG_SIGNATURE, png_chunks

MAX_MISSING_FRACTION = 0.1
"""The largest share of its pixels that a JPEG may have lost."""
GRAY = (127, 128)
"""The values with which libjpeg fills what is missing. Pillow inverts those of CMYK."""
JPEG_END = b"\xff\xd9"

PNG_COLOR_CHUNKS = frozenset({b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT"})
"""The chunks beside the critical ones that say which colors the pixels have."""


def ended_jpeg(data: bytes) -> bytes:
    """Return a JPEG with a marker at its end, where a file that was not written completely has zeros or nothing."""
    return data.rstrip(b"\x00") + JPEG_END


def missing_fraction(image: Image.Image) -> float:
    """Return the share of the pixels of a decoded JPEG that are missing at its end.

    Missing pixels go from any place in a row of blocks to the end of the image, so each row with missing pixels ends in
    gray.
    """
    last_column = _is_gray(image.crop((image.width - 1, 0, image.width, image.height)))
    num_rows = int(np.argmin(np.append(last_column[::-1, 0], False)))
    if num_rows == 0:
        return 0.0
    last_rows = _is_gray(image.crop((0, image.height - num_rows, image.width, image.height)))
    return float(last_rows.sum()) / (image.width * image.height)


def _is_gray(image: Image.Image) -> npt.NDArray[np.bool_]:
    """Return which pixels are gray in all channels, (H, W)."""
    values = np.asarray(image)
    gray = np.isin(values, GRAY).reshape(image.height, image.width, -1)
    return np.asarray(gray.all(axis=2))


def plain_png(data: bytes) -> bytes:
    """Return a PNG without the chunks that its pixels do not need, and without those that fail their checksums.

    A critical chunk stays as it is.
    """
    pieces = [PNG_SIGNATURE, data[8:33]]
    for name, start, length in png_chunks(data):
        chunk = data[start - 8 : start + length + 4]
        is_critical = not name[0] & 0x20
        if is_critical or (name in PNG_COLOR_CHUNKS and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")):
            pieces.append(chunk)
    return b"".join(pieces)
