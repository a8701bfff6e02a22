"""The file that an array or a PIL image travels as.

A PIL image that nobody has changed travels as the file that it was opened from. Anything else travels without loss if
that fits: as binary PPM, which is raw pixels after a short header, or as PNG if it has more than 4 MiB of pixels, more
than 8 bits, an alpha channel or a color profile. A PNG beyond the limit becomes a JPEG, or a WebP with an alpha
channel, if the caller has imported PIL.

Shapes: (H, W, C) samples, where C is 1 for grey, 2 for grey and alpha, 3 for RGB, 4 for RGB and alpha.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from manyview._uploads.pixels import arrays, pil_images, png

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_PPM_BYTES = 4 * 1024 * 1024
_QUALITIES = (95, 90, 85)
"""The qualities of JPEG and WebP that are tried, the best first."""


@dataclass(frozen=True, slots=True)
class EncodedPixels:
    """A file of an image. `is_recompressed` is true if its pixels are only nearly those that the caller gave."""

    data: bytes
    is_recompressed: bool = False


def encode(item: Any, max_bytes: int) -> EncodedPixels:
    """Encode an array or a PIL image, with loss if it needs more than `max_bytes` without. It may still be too large.

    Raises:
        ValueError: the array has another shape, type or range than images have. The text names what is allowed.
    """
    if pil_images.is_pil(item):
        file = pil_images.untouched_file(item)
        if file is not None and len(file) <= max_bytes:
            return EncodedPixels(file)
        samples, profile = pil_images.samples(item)
    else:
        samples, profile = arrays.samples(item), b""
    data = _without_loss(samples, profile)
    return EncodedPixels(data) if len(data) <= max_bytes else _with_loss(samples, profile, max_bytes, data)


def _without_loss(samples: NDArray[Any], profile: bytes) -> bytes:
    height, width, num_channels = samples.shape
    is_plain = num_channels in (1, 3) and samples.dtype.itemsize == 1 and not profile
    if not is_plain or 3 * height * width > _MAX_PPM_BYTES:
        return png.encode(samples, profile)
    rgb = samples if num_channels == 3 else samples.repeat(3, axis=2)
    return b"P6 %d %d 255\n" % (width, height) + rgb.tobytes()


def _with_loss(samples: NDArray[Any], profile: bytes, max_bytes: int, too_large: bytes) -> EncodedPixels:
    """Return a JPEG or WebP of the best quality that fits, or `too_large` if PIL is missing or nothing fits."""
    if "PIL.Image" not in sys.modules:
        return EncodedPixels(too_large)
    from PIL import Image

    if samples.dtype.itemsize == 2:
        samples = (samples >> 8).astype("uint8")  # as the server reads a file of 16 bits
    has_alpha = samples.shape[2] in (2, 4)
    image = Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)
    for quality in _QUALITIES:
        file = io.BytesIO()
        if has_alpha:
            image.save(file, "WEBP", quality=quality, icc_profile=profile)
        else:
            image.save(file, "JPEG", quality=quality, subsampling=0, icc_profile=profile)
        if file.tell() <= max_bytes:
            return EncodedPixels(file.getvalue(), is_recompressed=True)
    return EncodedPixels(too_large)
