"""PIL images as samples, or as the file that they were opened from.

Shapes: (H, W, C) samples, where C is 1 for grey, 2 for grey and alpha, 3 for RGB, 4 for RGB and alpha.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyview._uploads.pixels import arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

FORMATS = {"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"}
"""Pillow's names of the formats that the server reads."""
_SIXTEEN_BITS = {"I;16", "I;16L", "I;16B", "I;16N"}
_WITH_ALPHA = {"PA": "RGBA", "La": "LA", "RGBa": "RGBA"}


def is_pil(item: Any) -> bool:
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(item, pil.Image)


def untouched_file(image: Any) -> bytes | None:
    """Return the file that an image was opened from, or None if the image is no longer what the file shows.

    Most operations return another image, which has no file. Others change the image itself, which leaves no trace:
    so the pixels are compared with those of the file if they have been loaded. None also means that the server does not
    read the format, that the image is not the first frame of its file, or that the file is gone.
    """
    from PIL import Image

    if image.format not in FORMATS:
        return None
    try:
        if image.tell() != 0 or (data := _file_of(image)) is None:
            return None
        with Image.open(io.BytesIO(data)) as fresh:
            if image.tile:  # its pixels have not been loaded yet
                return data if (fresh.tile, fresh.size, fresh.mode) == (image.tile, image.size, image.mode) else None
            image.load()  # a reader of WebP has no tiles, and notes times when it loads
            fresh.load()
            return data if fresh == image else None
    # An image that came from another process has no frames, and Pillow no error of its own for that.
    except (AttributeError, OSError, ValueError, SyntaxError):
        return None


def _file_of(image: Any) -> bytes | None:
    """Return the contents of an image's file, from the open file if there is one."""
    file, name = getattr(image, "fp", None), getattr(image, "filename", "")
    if file is None:
        return Path(name).read_bytes() if name else None
    place = file.tell()
    file.seek(0)
    data: bytes = file.read()
    file.seek(place)
    return data


def samples(image: Image.Image) -> tuple[NDArray[Any], bytes]:
    """Return an image's samples, (H, W, C) of uint8 or uint16, upright as EXIF says, and its color profile or b"".

    Raises:
        ValueError: its numbers are outside of the range that images have, or its mode is unknown.
    """
    import numpy as np
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    profile: bytes = image.info.get("icc_profile") or b""
    if image.mode in _SIXTEEN_BITS or image.mode in ("I", "F"):
        return _from_numbers(image), profile
    if image.mode == "CMYK":
        return np.asarray(_from_inks(image, profile)), b""
    return arrays.samples(np.asarray(_with_plain_mode(image))), profile


def _with_plain_mode(image: Image.Image) -> Image.Image:
    """Return the image as 1, L, LA, RGB or RGBA, with an alpha channel if anything in it is transparent."""
    if "transparency" in image.info and image.mode in ("1", "L", "RGB", "P"):
        return image.convert("LA" if image.mode in ("1", "L") else "RGBA")
    if image.mode in ("1", "L", "LA", "RGB", "RGBA"):
        return image
    try:
        return image.convert(_WITH_ALPHA.get(image.mode, "RGB"))
    except ValueError as error:
        raise ValueError(f"a PIL image of mode {image.mode} cannot be sent: convert it to RGB") from error


def _from_inks(image: Image.Image, profile: bytes) -> Image.Image:
    """Return a CMYK image as RGB, in sRGB if it has a profile that can be used. The server does the same to a file."""
    from PIL import ImageCms

    try:
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, io.BytesIO(profile), srgb, outputMode="RGB") if profile else None
    except (ImageCms.PyCMSError, OSError):
        converted = None
    return converted or image.convert("RGB")


def _from_numbers(image: Image.Image) -> NDArray[Any]:
    """Return the samples of an image of wide numbers: 16 bits, which mode I holds too, or floats."""
    import numpy as np

    numbers = np.asarray(image)
    if image.mode == "F":
        return arrays.samples(numbers)
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high > 65_535:
        raise ValueError(f"a PIL image of mode {image.mode} must lie in [0, 65535], not in [{low}, {high}]")
    grey = numbers.astype(np.uint16)
    if (key := image.info.get("transparency")) is None:
        return grey[:, :, None]
    return np.stack([grey, np.where(grey == key, 0, 65_535).astype(np.uint16)], axis=2)
