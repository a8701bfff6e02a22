"""Arrays and PIL images as bytes. PIL is imported only if the caller has imported it.

Shapes: (H, W, 3) RGB, (H, W) or (H, W, 1) grey, (N, H, W, 3) a batch; uint8 throughout.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAX_PPM_BYTES = 4 * 1024 * 1024


def is_pil(item: Any) -> bool:
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(item, pil.Image)


def is_array(item: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(item, numpy.ndarray)


def split(array: NDArray[np.uint8]) -> Sequence[NDArray[np.uint8]]:
    """Return an array of one image or of a batch as a sequence of images."""
    return list(array) if array.ndim == 4 else [array]


def encode(item: Any) -> bytes:
    """Encode a PIL image or a uint8 array as PPM, or as PNG if it has more than 4 MiB of pixels. Raises ValueError for
    other arrays."""
    if is_pil(item):
        from PIL import ImageOps

        image = ImageOps.exif_transpose(item).convert("RGB")
        width, height, pixels = image.width, image.height, image.tobytes()
    else:
        rgb = _rgb(item)  # (H, W, 3)
        height, width, pixels = rgb.shape[0], rgb.shape[1], rgb.tobytes()
    if len(pixels) <= _MAX_PPM_BYTES:
        return b"P6 %d %d 255\n" % (width, height) + pixels
    return encode_png(width, height, pixels)


def decode_png(png: bytes) -> NDArray[np.uint8]:
    """Return the pixels (H, W, 3) of a PNG as the server writes it: RGB, 8 bits, not interlaced, with the filters None,
    Sub and Up. Raises ValueError for any other PNG. The client has no Pillow, and the other filters would need a loop
    over all pixels."""
    import numpy as np

    header, body, at = b"", b"", 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        name, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        header, body = (data if name == b"IHDR" else header), (body + data if name == b"IDAT" else body)
        at += 12 + length
    width, height, *kind = struct.unpack(">IIBBBBB", header)
    plain = np.frombuffer(zlib.decompress(body), dtype=np.uint8)
    if kind != [8, 2, 0, 0, 0] or plain[:: 1 + 3 * width].max() > 2:
        raise ValueError("the SDK cannot read this kind of PNG: open it with Pillow")
    rows = plain.reshape(height, 1 + 3 * width)
    pixels = rows[:, 1:].reshape(height, width, 3).copy()
    to_the_left = rows[:, 0] == 1
    pixels[to_the_left] = pixels[to_the_left].cumsum(axis=1, dtype=np.uint8)
    for row in np.flatnonzero(rows[1:, 0] == 2) + 1:
        pixels[row] += pixels[row - 1]
    return pixels


def _rgb(array: NDArray[Any]) -> NDArray[np.uint8]:
    import numpy as np

    if array.dtype != np.uint8:
        raise ValueError(f"an image array must be uint8 in [0, 255], not {array.dtype}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 2:
        return np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        hint = ": channels come last, transpose it" if array.ndim == 3 and array.shape[0] == 3 else ""
        raise ValueError(f"an image array must be (H, W, 3) or (H, W), not {array.shape}{hint}")
    return array


def encode_png(width: int, height: int, pixels: bytes) -> bytes:
    """Encode RGB pixels as PNG 1.2 with the filter Up, with which fast deflate compresses neighboring rows well."""
    import numpy as np

    rows = np.frombuffer(pixels, dtype=np.uint8).reshape(height, width * 3)
    filtered = np.empty((height, width * 3 + 1), dtype=np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    filtered[1:, 1:] = rows[1:] - rows[:-1]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(filtered.tobytes(), 1)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
