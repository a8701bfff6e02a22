"""Colors of embedded profiles as sRGB, in every format that can embed one."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from manyview_server.worker.images import color_profile
from manyview_server.worker.images.decode_memory import DecodeMemory
from manyview_server.worker.images.guarded_decoder import GuardedDecoder
from manyview_server.worker.images.rgb import PixelRule
from support.images import profiles

COLORS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
SRGB, KEPT = PixelRule(), PixelRule(color_profile="ignore")
EXACT: dict[str, dict[str, Any]] = {"PNG": {}, "WEBP": {"lossless": True}}


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(data: bytes, rule: PixelRule = SRGB) -> np.ndarray[Any, Any]:
    """Return the pixels (16, 16, 3) as jobs and models get them."""
    found = GuardedDecoder("x", None, DecodeMemory()).decode(data, 16, rule, item=0)
    return found.pixels.permute(1, 2, 0).numpy()


def converted(profile: bytes) -> np.ndarray[Any, Any]:
    image = ImageCms.profileToProfile(Image.fromarray(COLORS), io.BytesIO(profile), ImageCms.createProfile("sRGB"))
    assert image is not None
    return np.asarray(image)


@pytest.mark.parametrize("kind", EXACT)
def test_colors_of_a_phone_become_srgb(kind: str) -> None:
    data = saved(Image.fromarray(COLORS), kind, icc_profile=profiles.display_p3(), **EXACT[kind])
    expected = converted(profiles.display_p3())
    assert np.abs(expected.astype(int) - COLORS).max() > 50
    assert np.array_equal(read(data), expected)
    assert np.array_equal(read(data, KEPT), COLORS)


@pytest.mark.parametrize("num_more_bytes", [0, 150_000], ids=["in one segment", "in three segments"])
def test_the_fast_way_of_jpegs_sees_the_profile(num_more_bytes: int) -> None:
    plain, profile = saved(Image.fromarray(COLORS), "JPEG", quality=95), profiles.display_p3(num_more_bytes)
    data = saved(Image.fromarray(COLORS), "JPEG", quality=95, icc_profile=profile)
    expected = color_profile.to_srgb(torch.from_numpy(read(plain)).permute(2, 0, 1), profile).permute(1, 2, 0)
    assert np.array_equal(read(data), expected.numpy())
    assert not np.array_equal(read(data), read(plain))
    assert np.array_equal(read(data, KEPT), read(plain))


def test_white_and_black_stay_white_and_black() -> None:
    ends = np.zeros((16, 16, 3), np.uint8)
    ends[:, 8:] = 255
    assert np.array_equal(read(saved(Image.fromarray(ends), icc_profile=profiles.display_p3())), ends)


def test_a_profile_of_grey_converts_grey() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = read(saved(Image.fromarray(grey), icc_profile=profiles.linear_grey()))
    light = grey / 255
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(pixels - expected[:, :, None]).max() <= 1


BROKEN = {
    "bytes": b"no profile at all",
    "cut off": profiles.display_p3()[:200],
    "too large": profiles.display_p3(5 << 20),
    "of grey for colors": profiles.linear_grey(),
    "of ink for colors": profiles.cmyk(),
}


@pytest.mark.parametrize("profile", [profiles.srgb(), *BROKEN.values()], ids=["sRGB", *BROKEN])
def test_pixels_stay_as_they_are_with_a_profile_that_is_srgb_or_cannot_be_used(profile: bytes) -> None:
    pixels = torch.from_numpy(COLORS.copy()).permute(2, 0, 1)
    assert color_profile.to_srgb(pixels, profile) is pixels


def test_cmyk_is_converted_by_its_profile() -> None:
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:, :8, :3] = 255  # colors that do not print, in this profile
    ink[8:, :, 3] = 255
    data = saved(Image.fromarray(ink, "CMYK"), "JPEG", quality=100, subsampling=0, icc_profile=profiles.cmyk())
    pixels = read(data)
    assert pixels[2, 2].min() > 240
    assert pixels[12].max() < 15
    assert read(data, KEPT)[2, 2].max() < 15
    assert read(saved(Image.fromarray(ink, "CMYK"), "JPEG", icc_profile=b"broken"))[2, 2].max() < 15


def test_a_profile_and_transparency_go_together() -> None:
    transparent = np.dstack([COLORS, np.full((16, 16), 255, np.uint8)])
    transparent[:8, :, 3] = 0
    pixels = read(saved(Image.fromarray(transparent), icc_profile=profiles.display_p3()))
    assert np.all(pixels[:8] == 255)
    assert np.array_equal(pixels[8:], converted(profiles.display_p3())[8:])


def test_threads_may_share_a_profile() -> None:
    data = saved(Image.fromarray(COLORS), icc_profile=profiles.display_p3())
    expected = converted(profiles.display_p3())
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(pixels, expected) for pixels in pool.map(read, [data] * 200))
