from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from manyview_server.learn.losses import mae, normalized_patches, patchify, simmim
from support.learning.golden import waves


@settings(deadline=None, max_examples=60)
@given(
    batch=st.integers(1, 3), channels=st.integers(1, 4), rows=st.integers(1, 4), columns=st.integers(1, 4),
    size=st.integers(1, 5),
)  # fmt: skip
def test_patches_tile_the_image(batch: int, channels: int, rows: int, columns: int, size: int) -> None:
    images = torch.randn(batch, channels, rows * size, columns * size)
    patches = patchify(images, size)
    assert patches.shape == (batch, rows * columns, size * size * channels)
    for row in range(rows):
        for column in range(columns):
            part = images[:, :, row * size : (row + 1) * size, column * size : (column + 1) * size]
            assert torch.equal(patches[:, row * columns + column], part.permute(0, 2, 3, 1).flatten(1))


def test_channels_last_images_give_the_same_patches() -> None:
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(patchify(images.to(memory_format=torch.channels_last), 4), patchify(images, 4))


def test_a_normalized_patch_has_mean_0_and_variance_1_and_a_flat_one_is_zeros() -> None:
    patches = normalized_patches(waves(6, 12, 0.3).view(2, 3, 12))
    torch.testing.assert_close(patches.mean(-1), torch.zeros(2, 3, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(patches.var(-1), torch.ones(2, 3, dtype=torch.float64), atol=1e-4, rtol=0)
    assert not normalized_patches(torch.full((1, 1, 12), 0.5)).any()


def test_by_hand_and_only_hidden_patches_count() -> None:
    prediction, target = torch.tensor([[[1.0, 1.0], [4.0, 2.0], [9.0, 9.0]]]), torch.zeros(1, 3, 2)
    mask = torch.tensor([[True, True, False]])
    assert mae(prediction, target, mask).item() == pytest.approx((1 + (16 + 4) / 2) / 2)
    assert simmim(prediction, target, mask).item() == pytest.approx((1 + 3) / 2)


def images_of(patches: Tensor) -> Tensor:
    """The images (B, 3, 8, 8) of patches (B, 4, 48)."""
    return patches.view(-1, 2, 2, 4, 4, 3).permute(0, 5, 1, 3, 2, 4).reshape(-1, 3, 8, 8)


@pytest.mark.parametrize(("loss", "power"), [(mae, 2), (simmim, 1)])
def test_they_are_the_authors_formulas(loss: Any, power: int) -> None:
    """MAE: the mean over the patch, then masked and divided by the mask's sum. SimMIM's, per pixel, is the same."""
    images = waves(2 * 3, 8 * 8, 0.2).view(2, 3, 8, 8)
    prediction = waves(2 * 4, 48, 1.1).view(2, 4, 48).requires_grad_()
    mask = torch.tensor([[True, False, False, True], [False, True, True, True]])
    value = loss(prediction, patchify(images, 4), mask)
    error = (prediction.detach() - patchify(images, 4)).abs().pow(power).mean(-1)
    assert value.item() == pytest.approx(float((error * mask).sum() / mask.sum()), abs=1e-12)
    per_pixel = images_of(mask[..., None].expand(2, 4, 48).double())
    whole = (images_of(prediction.detach()) - images).abs().pow(power)
    assert value.item() == pytest.approx(float((whole * per_pixel).sum() / per_pixel.sum()), abs=1e-12)
    (gradient,) = torch.autograd.grad(value, prediction)
    assert not gradient[~mask].any()
    assert gradient[mask].any()


@pytest.mark.parametrize("loss", [mae, simmim])
def test_the_hidden_patches_alone_give_the_same(loss: Any) -> None:
    prediction, target = waves(8, 6, 0.1).view(2, 4, 6), waves(8, 6, 1.1).view(2, 4, 6)
    mask = torch.tensor([[True, False, False, True], [False, True, True, False]])
    hidden = loss(prediction[mask].view(2, 2, 6), target[mask].view(2, 2, 6))
    assert hidden.item() == pytest.approx(loss(prediction, target, mask).item(), abs=1e-12)


@pytest.mark.parametrize("loss", [mae, simmim])
def test_degenerate_batches_are_finite(loss: Any) -> None:
    prediction = torch.ones(1, 4, 3, requires_grad=True)
    value = loss(prediction, torch.ones(1, 4, 3), torch.zeros(1, 4, dtype=torch.bool))
    value.backward()
    assert value == 0
    assert prediction.grad is not None
    assert not prediction.grad.any()


@pytest.mark.parametrize("loss", [mae, simmim])
def test_they_compute_in_float32_inside_autocast_and_from_half_precision(loss: Any) -> None:
    prediction, target = waves(8, 6, 0.1).view(2, 4, 6).bfloat16(), waves(8, 6, 1.1).view(2, 4, 6).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(prediction, normalized_patches(target))
    assert value.dtype == torch.float32
    expected = loss(prediction.double(), normalized_patches(target.double()))
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_what_cannot_be_is_refused() -> None:
    images = torch.ones(2, 3, 8, 6)
    with pytest.raises(ValueError, match="patches of 4 pixels do not tile images of 8 x 6"):
        patchify(images, 4)
    with pytest.raises(ValueError, match="patches of 0 pixels do not tile"):
        patchify(images, 0)
    with pytest.raises(ValueError, match=r"images must be \(B, 3, H, W\), not \(3, 8, 6\)"):
        patchify(images[0], 2)
    with pytest.raises(ValueError, match="patches of 1 value have no variance"):
        normalized_patches(torch.ones(2, 4, 1))
    with pytest.raises(ValueError, match=r"both must be \(B, N, E\), not \(2, 4, 3\) and \(2, 5, 3\)"):
        mae(torch.ones(2, 4, 3), torch.ones(2, 5, 3))
    with pytest.raises(ValueError, match=r"the mask must be \(2, 4\) bools, not \(2, 4\) torch.float32"):
        simmim(torch.ones(2, 4, 3), torch.ones(2, 4, 3), torch.ones(2, 4))
