"""Pixels of any kind as 8-bit RGB, by the rule of a job or of a model.

Files of 16 bits keep the upper eight bits of each value, and floats in [0, 1] become the nearest of 256 levels: nothing
is stretched to the range that an image uses, so equal values look equal in all images. Transparent pixels are laid on
a background, because the colors that are hidden under them are noise that nobody sees.

Shapes: (H, W) numbers of a grey image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from manyview_server.worker.images import color_profile

GREY_NUMBERS = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
"""Pillow's modes of grey images with more than 8 bits."""
FLOAT_TOLERANCE = 0.5 / 255
"""Floats may leave [0, 1] by this much, as those may that a client sends."""
KEY_FACTORS = {"L;2": 85, "L;4": 17}
"""Pillow stretches grey of 2 and 4 bits to 8, but leaves the transparent grey of such a PNG as the file has it."""


class PixelsOutOfRange(ValueError):
    """The numbers of an image have no meaning as brightness. `str()` says which range is allowed."""


class _NamesRule(Protocol):
    """A record that has the fields of a PixelRule among others."""

    @property
    def transparency(self) -> str: ...

    @property
    def color_profile(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelRule:
    """The rule by which pixels become RGB. A model embeds images by the rule by which it was trained."""

    transparency: str = "white"
    """"white" or "black": the background; "drop": the hidden colors as they are."""
    color_profile: str = "srgb"
    """"srgb": colors are converted from the image's profile; "ignore": they stay as they are."""

    @classmethod
    def of(cls, source: _NamesRule) -> PixelRule:
        """Return the rule that the settings of a job or the card of a model name."""
        return cls(transparency=source.transparency, color_profile=source.color_profile)


DEFAULT_RULE = PixelRule()
"""The rule of plain backbones, which nobody has trained here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RgbImage:
    """An image of mode RGB."""

    image: Image.Image
    profile: bytes = b""
    """The profile that its colors still have; empty for sRGB."""
    used_bits: int | None = None
    """The bits that the largest value needs, if the file has 16 bits per channel; otherwise None."""


def raw_mode(image: Image.Image) -> str:
    """Return how the file of an image stores pixels, such as "RGB;16B". Pillow forgets it when it loads them."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0].args if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def to_rgb(image: Image.Image, rule: PixelRule, stored_mode: str = "") -> RgbImage:
    """Return an image that Pillow opened as RGB.

    Args:
        stored_mode: what `raw_mode` returned when the image was opened.

    Raises:
        PixelsOutOfRange: 32-bit integers beyond 16 bits, or floats outside of [0, 1].
    """
    profile: bytes = image.info.get("icc_profile") or b""
    used_bits = None
    if image.mode in GREY_NUMBERS:
        image, used_bits = _from_numbers(image)
    elif ";16" in stored_mode:
        used_bits = 8 + max(high for _, high in _color_extrema(image)).bit_length()
    _correct_key(image, stored_mode)
    if image.mode == "CMYK":
        if rule.color_profile == "srgb" and profile and (converted := color_profile.cmyk_to_srgb(image, profile)):
            return RgbImage(image=converted)
        return RgbImage(image=image.convert("RGB"))
    return RgbImage(image=_opaque(image, rule.transparency), profile=profile, used_bits=used_bits)


def _opaque(image: Image.Image, transparency: str) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    if transparency == "drop":  # a palette's transparent color may be one that other pixels have too
        return (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")  # converting would copy it
    background = Image.new("RGB", image.size, transparency)
    background.paste(rgba, mask=rgba)
    return background


def _from_numbers(image: Image.Image) -> tuple[Image.Image, int | None]:
    """Return a grey image of numbers in 8 bits, or RGBA if one number means transparent."""
    numbers = np.asarray(image)
    if image.mode == "F":
        return Image.fromarray(_from_floats(numbers)), None
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high > 0xFFFF:
        raise PixelsOutOfRange(f"whole numbers from {low:,} to {high:,}; an image must lie in [0, 65535]")
    grey = Image.fromarray((numbers >> 8).astype(np.uint8))
    if (key := image.info.get("transparency")) is not None:
        alpha = Image.fromarray((numbers != key) * np.uint8(255))
        grey = Image.merge("RGBA", (grey, grey, grey, alpha))
    return grey, high.bit_length()


def _from_floats(numbers: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    low, high = float(numbers.min()), float(numbers.max())
    if not (low >= -FLOAT_TOLERANCE and high <= 1 + FLOAT_TOLERANCE):  # also if one of them is not a number
        raise PixelsOutOfRange(f"floats from {low:g} to {high:g}; an image of floats must lie in [0, 1]")
    levels: npt.NDArray[np.uint8] = np.rint(numbers.clip(0, 1) * 255).astype(np.uint8)
    return levels


def _color_extrema(image: Image.Image) -> list[tuple[int, int]]:
    """Return the smallest and largest value of each channel but alpha."""
    extrema = [image.getchannel(band).getextrema() for band in image.getbands() if band != "A"]
    return extrema  # type: ignore[return-value]


def _correct_key(image: Image.Image, stored_mode: str) -> None:
    """Give the transparent color the scale that Pillow gave to the pixels."""
    key = image.info.get("transparency")
    if stored_mode in KEY_FACTORS and isinstance(key, int):
        image.info["transparency"] = key * KEY_FACTORS[stored_mode]
    elif ";16" in stored_mode and isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)
