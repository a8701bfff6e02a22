"""Decode an image: the one place where untrusted bytes meet an image library.

libjpeg-turbo decodes JPEG (simplejpeg: 1.0 ms for 400 x 533 pixels on one core, where Pillow takes 1.9). Pillow decodes
the JPEGs that it refuses, and all other formats except binary PPM, which is read here. Both libraries release the
interpreter's lock. An image with several frames or pages counts as its first one.
torch's uint8 kernel resizes: 0.7 ms from there to 224 pixels, where Pillow takes 2.4, and at most 1/255 apart.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import interpolate

from manyview_server import image_header
from manyview_server.configuration.networks.preprocessing import Preprocessing
from manyview_server.image_header import MAX_PIXELS, MAX_SIDE, HeaderRefused, ImageHeader
from manyview_server.worker.images.damage import MAX_MISSING_FRACTION, ended_jpeg, missing_fraction, plain_png
from manyview_server.worker.images.first_frame import open_first_frame
from manyview_server.worker.images.rgb import DEFAULT_RULE, PixelRule, PixelsOutOfRange, raw_mode, to_rgb

Pixels = npt.NDArray[np.uint8]

MAX_ASPECT = 8
"""Twice the width of any kernel away from the square that is cut from the middle."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A decoded image."""

    pixels: Pixels
    """RGB, (H, W, 3), upright as EXIF says."""
    profile: bytes = b""
    """The ICC profile that the colors have; empty for sRGB, or if it is ignored."""
    used_bits: int | None = None
    """The bits that the largest value needs, if the file has 16 bits per channel; otherwise None."""


def decode(data: bytes, header: ImageHeader | None = None) -> Pixels:
    """Return the pixels of `read_picture`."""
    return read_picture(data, header).pixels


def read_picture(data: bytes, header: ImageHeader | None = None, rule: PixelRule = DEFAULT_RULE) -> Picture:
    """Decode an image. `rgb` says how gray, palettes, CMYK, 16 bits and transparency become RGB.

    Args:
        header: the result of `read_header`, if it was called before.
        rule: what is done with transparency and color profiles.

    Raises:
        DecodeError: the image is damaged, truncated, of another format or too large, or `read_header` refuses it.
        MemoryError: there was not enough memory.
    """
    header = header or read_header(data)
    if header.extension == "ppm":
        return Picture(pixels=_decode_ppm(data, header))
    picture = _decode_stored(data, header, rule)
    profile = picture.profile if rule.color_profile == "srgb" else b""
    pixels = upright(picture.pixels, header.orientation)
    return Picture(pixels=pixels, profile=profile, used_bits=picture.used_bits)


def resize(pixels: Pixels, size: int) -> Tensor:
    """Resample a whole image (H, W, 3) to (3, size, size) uint8: antialiased, bilinear, both axes alike."""
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    if image.shape[1:] == (size, size):
        return image
    return interpolate(image[None], (size, size), mode="bilinear", antialias=True, align_corners=False)[0]


def resample(pixels: Pixels, preprocessing: Preprocessing) -> Tensor:
    """Resize an image (H, W, 3) and cut a square from its center, as Pillow and torchvision do it: (3, o, o) uint8.

    The bilinear kernels of torch and Pillow differ by at most 1/255, the bicubic ones by up to 5/255 for noise. Of an
    image that is longer than `MAX_ASPECT` times its shorter side, only the middle is resized, because the whole could
    be larger than the memory.
    """
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    if preprocessing.crop == "center":
        image = _middle(image)
    height, width = image.shape[1:]
    size, square = preprocessing.resize_size, preprocessing.image_size
    if preprocessing.crop == "squash":
        sides = (size, size)
    elif height < width:
        sides = (size, size * width // height)
    else:
        sides = (size * height // width, size)
    if (height, width) != sides:
        image = interpolate(image[None], sides, mode=preprocessing.interpolation, antialias=True, align_corners=False)[
            0
        ]
    top, left = (round((side - square) / 2) for side in sides)
    return image[:, top : top + square, left : left + square]


def _middle(image: Tensor) -> Tensor:
    """Return an image (3, H, W) without the ends that are far from its center."""
    for axis, other in ((1, 2), (2, 1)):
        side, most = image.shape[axis], MAX_ASPECT * image.shape[other]
        if side > most:
            cut = (side - most) // 2  # the same at both ends, so that the center stays
            image = image.narrow(axis, cut, side - 2 * cut)
    return image


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn and mirror `pixels` as the EXIF orientation, 1 to 8, says. Other values change nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _decode_stored(data: bytes, header: ImageHeader, rule: PixelRule) -> Picture:
    """Return the picture as the file stores it. A damaged JPEG or PNG gets a second try.

    Pillow would allocate further canvases for an animated PNG, so it sees only the still image.
    """
    if header.extension == "jpg":
        return _decode_jpeg(data, header) or _decode_pillow(ended_jpeg(data), header, rule)
    if header.extension == "png":
        try:
            return _decode_pillow(plain_png(data) if b"acTL" in data else data, header, rule)
        except DecodeError:
            return _decode_pillow(plain_png(data), header, rule)
    return _decode_pillow(data, header, rule)


def _decode_jpeg(data: bytes, header: ImageHeader) -> Picture | None:
    """Return the picture, or None if libjpeg-turbo warns about the file or cannot convert it, such as CMYK."""
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
    return Picture(pixels=pixels, profile=header.profile)


def _decode_pillow(data: bytes, header: ImageHeader, rule: PixelRule) -> Picture:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_first_frame(data, header) as image:
                _check_size(*image.size)
                stored_mode = raw_mode(image)
                image.load()
                if header.extension == "jpg":
                    _check_missing(missing_fraction(image))
                found = to_rgb(image, rule, stored_mode)
                return Picture(pixels=np.array(found.image), profile=found.profile, used_bits=found.used_bits)
    except (DecodeError, MemoryError):
        raise
    except PixelsOutOfRange as error:
        raise DecodeError("PIXELS_OUT_OF_RANGE", str(error)) from error
    except Image.DecompressionBombError as error:
        raise DecodeError("TOO_MANY_PIXELS", f"more than {MAX_PIXELS} pixels") from error
    except (UnidentifiedImageError, SyntaxError) as error:
        text = "the file starts like an image, but its header is damaged or of a kind that cannot be read"
        raise DecodeError("DECODE_FAILED", text) from error
    # Pillow's readers raise nearly anything for damaged files, in words that are not meant for callers.
    except Exception as error:
        raise DecodeError("DECODE_FAILED", "the header is fine, but the pixels are damaged or cut off") from error


def _check_missing(fraction: float) -> None:
    if fraction > MAX_MISSING_FRACTION:
        found = f"the file lost {100 * fraction:.0f} % of its pixels"
        raise DecodeError("DECODE_FAILED", f"{found}; at most {100 * MAX_MISSING_FRACTION:.0f} % may be missing")


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
