"""Colors of an ICC profile as sRGB, with Little CMS.

Photographs of phones come with Display P3: read as sRGB, their colors are too dull. Pixels are converted after they
were resampled, because that takes 20 ms per megapixel, more than the decoder itself needs. A profile that is sRGB
within `SAME_LEVELS` costs nothing more than the question. A profile that cannot be used is ignored.

Shapes: S pixels on a side.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageCms
from torch import Tensor

MAX_PROFILE_BYTES = 4 << 20
"""Larger profiles are ignored. Those of printers have up to 3 MiB."""
SAME_LEVELS = 2
"""A profile counts as sRGB if it changes no color of the test by more levels: the tables of many sRGB profiles are
rounded."""
CACHED_PROFILES = 16
"""The profiles that are kept with their transforms, so 64 MiB at most."""
MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""The color spaces of profiles, and the modes of the images that they describe."""


def to_srgb(pixels: Tensor, profile: bytes) -> Tensor:
    """Return pixels (3, S, S) uint8 in sRGB. A profile of grey converts grey pixels only."""
    found = _transform(profile)
    if found is None or found[0] == "CMYK":
        return pixels
    mode, transform = found
    array = pixels.permute(1, 2, 0).numpy()  # (S, S, 3)
    if mode == "L":
        if np.any(array != array[:, :, :1]):
            return pixels
        array = array[:, :, 0]
    converted = ImageCms.applyTransform(Image.fromarray(np.ascontiguousarray(array)), transform)
    return torch.from_numpy(np.array(converted)).permute(2, 0, 1)


def cmyk_to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Return a CMYK image as RGB, or None if the profile is not one of CMYK or cannot be used."""
    found = _transform(profile)
    return ImageCms.applyTransform(image, found[1]) if found and found[0] == "CMYK" else None


@lru_cache(CACHED_PROFILES)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform] | None:
    """Return the mode that a profile describes and its way to sRGB, or None if pixels stay as they are."""
    if len(profile) > MAX_PROFILE_BYTES:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = MODES[source.profile.xcolor_space]
        # The tables that would make grey faster are off by up to ten levels in the shadows.
        flags = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.NONE
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", flags=flags)
    except (ImageCms.PyCMSError, OSError, ValueError, KeyError):
        return None
    return None if mode != "CMYK" and _changes_nothing(mode, transform) else (mode, transform)


def _changes_nothing(mode: str, transform: ImageCms.ImageCmsTransform) -> bool:
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    probe = Image.fromarray(grid if mode == "RGB" else levels[None])
    before = np.asarray(probe.convert("RGB")).astype(int)
    after = np.asarray(ImageCms.applyTransform(probe, transform)).astype(int)
    return bool(np.abs(after - before).max() <= SAME_LEVELS)
