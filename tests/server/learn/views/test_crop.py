from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from manyview_server.learn.views.crop import Interpolation, resampling_weights, resize_by_matmul, resize_one_by_one


def smooth_images(count: Any, size: Any, seed: Any = 0) -> Any:
    """Images with edges and gradients, as photographs have; uint8 (count, 3, size, size)."""
    noise = torch.rand(count, 3, max(2, size // 4), max(2, size // 4), generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(noise, (size, size), mode="nearest")
    return (large * 255).round().to(torch.uint8)


def cases(cache_size: Any) -> Any:
    crop = torch.tensor(
        [
            [0, 0, cache_size, cache_size],
            [1, 2, cache_size // 2, cache_size // 3],
            [cache_size - 1, cache_size - 1, 1, 1],
            [3, 0, cache_size - 3, 5],
        ]
    )
    return crop, torch.tensor([False, True, False, True]), torch.tensor([False, False, True, True])


@pytest.mark.parametrize(("cache_size", "size"), [(32, 32), (32, 8), (64, 48), (96, 20), (24, 40)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("way", ["matmul", "one_by_one"])
def test_crops_equal_those_of_torchvision_within_one_level(
    cache_size: int, size: int, way: str, interpolation: Interpolation
) -> None:
    images = smooth_images(4, cache_size)
    crop, flip, flip_vertical = cases(cache_size)
    mode = InterpolationMode(interpolation)
    if way == "matmul":
        planes = resize_by_matmul(images, crop, flip, flip_vertical, size, interpolation)
    else:
        planes = resize_one_by_one(images, [0, 1, 2, 3], crop.tolist(), flip, flip_vertical, size, interpolation)
    assert planes.shape == (3, 4, size, size)
    assert planes.is_contiguous()
    for row in range(4):
        top, left, height, width = crop[row].tolist()
        expected = reference.resized_crop(
            images[row], top, left, height, width, [size, size], interpolation=mode, antialias=True
        )
        expected = reference.horizontal_flip(expected) if flip[row] else expected
        expected = reference.vertical_flip(expected) if flip_vertical[row] else expected
        difference = (planes[:, row] * 255 - expected.float()).abs()
        assert difference.max() <= (1.001 if interpolation == "bilinear" else 1.1), (row, difference.max())


def test_a_crop_of_the_whole_image_at_its_own_size_changes_nothing() -> None:
    images = smooth_images(2, 16)
    crop = torch.tensor([[0, 0, 16, 16]] * 2)
    planes = resize_by_matmul(images, crop, torch.tensor([False, True]), torch.tensor([False, False]), 16)
    assert torch.allclose(planes[:, 0] * 255, images[0].float(), atol=1e-3)
    assert torch.allclose(planes[:, 1] * 255, images[1].flip(2).float(), atol=1e-3)


def test_weights_are_shares_of_pixels_inside_the_crop() -> None:
    weights = resampling_weights(torch.tensor([4, 0]), torch.tensor([7, 20]), torch.tensor([False, False]), 20, 5)
    assert torch.allclose(weights.sum(2), torch.ones(2, 5))
    assert weights[0, :, :4].abs().max() == 0
    assert weights[0, :, 11:].abs().max() == 0
