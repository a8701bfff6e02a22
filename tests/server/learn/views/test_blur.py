from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from PIL import Image, ImageFilter

from manyview_server.learn.views.blur import blur, blur_view, gaussian_matrix


def pillow_blur(image: Any, sigma: Any) -> Any:
    """uint8 (3, H, W) blurred as the reference does it."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    blurred = picture.filter(ImageFilter.GaussianBlur(radius=sigma))
    return torch.frombuffer(bytearray(blurred.tobytes()), dtype=torch.uint8).view(*image.shape[1:], 3).permute(2, 0, 1)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 1.5, 2.0])
def test_blur_is_close_to_the_box_blurs_of_pillow(sigma: float) -> None:
    # Photographs are this smooth. On white noise, above all at its edges, Pillow's boxes themselves are far off.
    noise = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(noise, (64, 64), mode="bicubic")[0].clamp(0, 1)
    image = (smooth * 255).round().to(torch.uint8)
    ours = blur(image[:, None].float(), torch.tensor([sigma]), sigma)[:, 0]
    difference = (ours - pillow_blur(image, sigma).float()).abs()
    assert difference.mean() < 0.8
    assert difference[:, 6:-6, 6:-6].max() < 6


@pytest.mark.parametrize(("size", "sigma"), [(32, 0.1), (32, 0.7), (32, 2.0), (5, 2.0)])
def test_blur_is_a_convolution_with_a_gaussian_over_repeated_edges(size: int, sigma: float) -> None:
    planes = torch.rand(3, 1, size, size, generator=torch.Generator().manual_seed(0))
    reach = math.ceil(4 * sigma)
    kernel = torch.tensor([math.exp(-0.5 * (d / sigma) ** 2) for d in range(-reach, reach + 1)])
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    padded = torch.nn.functional.pad(planes, (reach, reach, reach, reach), mode="replicate")
    expected = torch.nn.functional.conv2d(padded, kernel[None, None])
    assert torch.allclose(blur(planes, torch.tensor([sigma]), sigma), expected, atol=1e-5)


def test_each_view_is_blurred_by_its_own_sigma() -> None:
    planes = torch.rand(3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    together = blur(planes, torch.tensor([0.4, 2.0]), 2.0)
    for row, sigma in enumerate((0.4, 2.0)):
        alone = blur(planes[:, row : row + 1], torch.tensor([sigma]), 2.0)
        assert torch.allclose(together[:, row : row + 1], alone, atol=1e-6)


def test_rows_are_gaussians_that_sum_to_one_with_the_edges_repeated() -> None:
    matrix = gaussian_matrix(torch.tensor([1.0]), 21, 4)[0]
    assert torch.allclose(matrix.sum(1), torch.ones(21))
    assert (matrix[10, 11] / matrix[10, 10]).item() == pytest.approx(math.exp(-0.5), rel=1e-5)
    assert matrix[10, 5] == 0
    assert matrix[0, 0].item() == pytest.approx(0.5 + 0.5 * matrix[10, 10].item(), rel=1e-4)
    assert torch.allclose(matrix, matrix.flip(0).flip(1), atol=1e-7)


@pytest.mark.parametrize("size", [5, 16, 31, 96])
@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0, 5.0])
def test_a_view_in_strips_is_blurred_as_by_whole_matrices(size: int, sigma: float) -> None:
    planes = torch.rand(3, 1, size, size, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(blur_view(planes[:, 0], sigma), blur(planes, torch.tensor([sigma]), sigma)[:, 0], atol=1e-6)
