"""Each change at fixed parameters, in comparison with the reference's transforms of Pillow images.

Differences are in levels of 0 to 255, on photographs of 160 pixels. Pillow keeps bytes after each change, so up to one
level of difference is its own rounding.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from manyview_server.learn.views import apply, pixels
from manyview_server.learn.views.draw import BRIGHTNESS, CONTRAST, SATURATION, ViewParameters

SIDE = 160


@pytest.fixture(scope="module")
def photographs() -> Any:
    """Pillow images of SIDE x SIDE: parts of a temple and a flower, bright and dark."""
    whole = [Image.open(str(files("sklearn.datasets.images") / name)) for name in ("china.jpg", "flower.jpg")]
    return [image.crop((x, 60, x + SIDE, 60 + SIDE)) for image in whole for x in (40, 240)]


def as_tensor(image: Any) -> Any:
    """uint8 (3, H, W)."""
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(*image.size[::-1], 3).permute(2, 0, 1)


def differences(
    photographs: Any, expected: Any, *, size: Any = SIDE, interpolation: Any = "bilinear", **changes: Any
) -> Any:
    """(N, 3, o, o) between views with these parameters and what `expected` makes of each Pillow image."""
    count = len(photographs)
    plain = {
        "image": torch.arange(count),
        "crop": torch.tensor([[0, 0, SIDE, SIDE]]).repeat(count, 1),
        "flip": torch.zeros(count, dtype=torch.bool),
        "flip_vertical": torch.zeros(count, dtype=torch.bool),
        "quarter_turns": torch.zeros(count, dtype=torch.int64),
        "angle": torch.zeros(count),
        "jitter": torch.zeros(count, dtype=torch.bool),
        "factors": torch.tensor([[1.0, 1.0, 1.0, 0.0]]).repeat(count, 1),
        "order": torch.arange(4).repeat(count, 1),
        "grayscale": torch.zeros(count, dtype=torch.bool),
        "sigma": torch.zeros(count),
        "solarize_from": torch.full((count,), torch.inf),
        "solarize_before_blur": torch.zeros(count, dtype=torch.bool),
    }
    for name, value in changes.items():
        plain[name] = torch.as_tensor(value, dtype=plain[name].dtype).expand_as(plain[name]).clone()
    images = torch.stack([as_tensor(image) for image in photographs])
    views = apply(images, ViewParameters(**plain), size=size, interpolation=interpolation) * 255  # type: ignore[arg-type]
    theirs = torch.stack([as_tensor(expected(image)) for image in photographs])
    return (views - theirs.float()).abs()


@pytest.mark.parametrize("largest_matmul_px", [0, 1024], ids=["one_by_one", "matmul"])
@pytest.mark.parametrize("crop", [(0, 0, 160, 160), (10, 20, 140, 120), (33, 47, 70, 90), (100, 5, 40, 31)])
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops(
    photographs: Any,
    crop: tuple[int, int, int, int],
    size: int,
    interpolation: str,
    largest_matmul_px: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pixels, "LARGEST_MATMUL_PX", largest_matmul_px)
    mode = InterpolationMode(interpolation)
    found = differences(
        photographs,
        lambda image: reference.resized_crop(image, *crop, [size, size], interpolation=mode),
        size=size,
        interpolation=interpolation,
        crop=crop,
    )
    assert found.mean() < 0.3
    # Pillow resizes along the axis first that costs less, and what a cubic kernel overshoots is cut off in between.
    assert (found > 1.1).float().mean() < (0.01 if interpolation == "bicubic" else 1e-4)
    assert found.max() < (12 if interpolation == "bicubic" else 2.01)


@pytest.mark.parametrize(
    ("change", "theirs", "level"),
    [
        (BRIGHTNESS, reference.adjust_brightness, 0.81),  # Pillow cuts fractions off where it darkens
        (CONTRAST, reference.adjust_contrast, 1.2),
        (SATURATION, reference.adjust_saturation, 1.3),
    ],
    ids=["brightness", "contrast", "saturation"],
)
@pytest.mark.parametrize("factor", [0.0, 0.2, 0.6, 1.0, 1.4, 1.8])
def test_brightness_contrast_and_saturation(
    photographs: Any, change: Any, theirs: Any, level: float, factor: float
) -> None:
    factors = torch.tensor([1.0, 1.0, 1.0, 0.0])
    factors[change] = factor
    found = differences(photographs, lambda image: theirs(image, factor), jitter=True, factors=factors)
    assert found.max() < level


@pytest.mark.parametrize("turns", [-0.5, -0.2, -0.05, 0.0, 0.1, 0.2, 0.5])
def test_hue(photographs: Any, turns: float) -> None:
    factors = torch.tensor([1.0, 1.0, 1.0, turns])
    found = differences(photographs, lambda image: reference.adjust_hue(image, turns), jitter=True, factors=factors)
    # Pillow's hue, saturation and value are bytes: 12 levels off at most, here as in torchvision's exact one.
    assert found.mean() < 0.82
    assert found.max() < 12


@pytest.mark.parametrize(
    ("changes", "theirs"),
    [
        ({"flip": True}, ImageOps.mirror),
        ({"flip_vertical": True}, ImageOps.flip),
        ({"quarter_turns": 1}, lambda image: image.rotate(90)),
        ({"quarter_turns": 2}, lambda image: image.rotate(180)),
        ({"quarter_turns": 3}, lambda image: image.rotate(270)),
        ({"solarize_from": 128 / 255}, lambda image: ImageOps.solarize(image, 128)),
        ({"solarize_from": 0.0}, lambda image: ImageOps.solarize(image, 0)),
    ],
    ids=["flip", "flip_vertical", "90", "180", "270", "solarize", "invert"],
)
def test_mirrors_quarter_turns_and_solarization_are_exact(
    photographs: Any, changes: dict[str, Any], theirs: Any
) -> None:
    assert differences(photographs, theirs, **changes).max() < 1e-3


def test_grayscale(photographs: Any) -> None:
    found = differences(photographs, lambda image: ImageOps.grayscale(image).convert("RGB"), grayscale=True)
    assert found.max() < 0.52


@pytest.mark.parametrize("angle", [-120.0, -30.0, 5.0, 45.0, 77.7])
def test_rotations(photographs: Any, angle: float) -> None:
    found = differences(photographs, lambda image: image.rotate(angle), angle=angle)
    # At one pixel in two thousand, another of two pixels is the nearest, and it may have any value.
    assert (found.amax(1) > 1e-3).float().mean() < 2e-3


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 1.5, 2.0])
def test_blur(photographs: Any, sigma: float) -> None:
    found = differences(photographs, lambda image: image.filter(ImageFilter.GaussianBlur(sigma)), sigma=sigma)
    # Pillow's three box blurs against a true Gaussian; at the edges the boxes are further off.
    assert found.mean() < 0.5
    assert found[..., 8:-8, 8:-8].max() < 5.9
    assert (found > 6).float().mean() < 1e-3
