"""Decode an image: the one place where untrusted bytes meet an image library.

libjpeg-turbo decodes JPEG (simplejpeg: 1.0 ms for 400 x 533 pixels on one core, where Pillow takes 1.9). Pillow decodes
the JPEGs that it refuses, PNG and WebP. Binary PPM is read here. Both libraries release the interpreter's lock.
torch's uint8 kernel resizes: 0.7 ms from there to 224 pixels, where Pillow takes 2.4, and at most 1/255 apart.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import interpolate

from manyview_server import image_header
from manyview_server.image_header import HeaderRefused, ImageHeader

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 50_000_000
MAX_SIDE = 16_384
FORMATS = ("JPEG", "PNG", "WEBP")


class DecodeError(ValueError):
    """An image cannot be read. `reason` is one of ImageError's, `str()` a sentence for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_header(data: bytes) -> ImageHeader:
    """Read an image's header. Raises DecodeError if the header alone rules the image out."""
    if not data:
        raise DecodeError("IMAGE_EMPTY", "the image has 0 bytes")
    try:
        header = image_header.read_header(data)
    except HeaderRefused as refused:
        raise DecodeError(refused.reason, str(refused)) from refused
    _check_size(header.width, header.height)
    return header


def decode(data: bytes, header: ImageHeader | None = None) -> Pixels:
    """Return RGB pixels (H, W, 3), upright as EXIF says; alpha is dropped, gray, palette and CMYK are converted.

    Args:
        header: the result of `read_header`, if it was called before.

    Raises:
        DecodeError: the image is damaged, truncated, of another format or too large, or `read_header` refuses it.
        MemoryError: there was not enough memory.
    """
    header = header or read_header(data)
    if header.extension == "ppm":
        return _decode_ppm(data, header)
    pixels = _decode_jpeg(data) if header.extension == "jpg" else None
    return upright(_decode_pillow(data) if pixels is None else pixels, header.orientation)


def resize(pixels: Pixels, size: int) -> Tensor:
    """Resample a whole image (H, W, 3) to (3, size, size) uint8: antialiased, bilinear, both axes alike."""
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    if image.shape[1:] == (size, size):
        return image
    return interpolate(image[None], (size, size), mode="bilinear", antialias=True, align_corners=False)[0]


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn and mirror `pixels` as the EXIF orientation, 1 to 8, says. Other values change nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _decode_jpeg(data: bytes) -> Pixels | None:
    """Return the pixels, or None if libjpeg-turbo warns about the file or cannot convert it, such as CMYK."""
    try:
        height, width, color_space, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height)
        if color_space not in ("YCbCr", "RGB", "Gray"):
            return None
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB")
    except DecodeError:
        raise
    except ValueError:
        return None
    return pixels


def _decode_pillow(data: bytes) -> Pixels:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(*image.size)
                return np.array(_to_rgb(image))
    except (DecodeError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise DecodeError("TOO_MANY_PIXELS", f"more than {MAX_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        raise DecodeError("DECODE_FAILED", "the file starts like an image, but its header is damaged") from error
    # Pillow's readers raise nearly anything for damaged files, in words that are not meant for callers.
    except Exception as error:
        raise DecodeError("DECODE_FAILED", "the header is fine, but the pixels are damaged or cut off") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits per pixel, which Pillow would clip to 255
        values = np.asarray(image, dtype=np.uint32)
        return Image.fromarray((values >> 8).clip(max=255).astype(np.uint8)).convert("RGB")
    if image.mode == "P":  # through RGBA, because a palette's transparency may be one of its colors
        image = image.convert("RGBA")
    return image.convert("RGB")


def _decode_ppm(data: bytes, header: ImageHeader) -> Pixels:
    shape = (header.height, header.width, 3)
    pixels = np.frombuffer(data, np.uint8, offset=header.pixels_start).reshape(shape)
    return pixels.copy()  # torch needs writable memory


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise DecodeError("HEADER_CORRUPT", f"{width} x {height} pixels")
    if max(width, height) > MAX_SIDE:
        raise DecodeError("SIDE_TOO_LONG", f"{width} x {height} pixels; a side may have {MAX_SIDE}")
    if width * height > MAX_PIXELS:
        raise DecodeError("TOO_MANY_PIXELS", f"{width} x {height} pixels; at most {MAX_PIXELS} are allowed")
