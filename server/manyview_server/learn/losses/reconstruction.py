"""Hidden patches are guessed, pixel by pixel.

Shapes: B batch, H W image, p patch size, N patches (H/p W/p), E numbers of a patch (p p 3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from manyview_server.learn.losses.normalize import widened

PATCH_EPS = 1e-6
"""Added to the variance of a patch: one that does not vary has a target of zeros."""


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Images (B, 3, H, W) as patches (B, N, E): rows of patches from the top, in each its pixels row by row, in each
    pixel its channels. Any number of channels will do.

    Raises:
        ValueError: images that are not (B, 3, H, W), or that patches do not tile.
    """
    if images.ndim != 4:
        raise ValueError(f"images must be (B, 3, H, W), not {tuple(images.shape)}")
    p, (B, C, H, W) = patch_size, images.shape
    if p < 1 or H % p or W % p:
        raise ValueError(f"patches of {p} pixels do not tile images of {H} x {W}")
    return images.reshape(B, C, H // p, p, W // p, p).permute(0, 2, 4, 3, 5, 1).reshape(B, H * W // p**2, p * p * C)


def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """The images (B, 3, height, width) that `patchify` cut into patches (B, N, E).

    Raises:
        ValueError: patches that are not those of such images.
    """
    p = patch_size
    if p < 1 or height % p or width % p:
        raise ValueError(f"patches of {p} pixels do not tile images of {height} x {width}")
    rows, columns = height // p, width // p
    if patches.ndim != 3 or patches.shape[1] != rows * columns or patches.shape[2] % p**2:
        raise ValueError(f"patches must be (B, {rows * columns}, {p} {p} C), not {tuple(patches.shape)}")
    B, C = len(patches), patches.shape[2] // p**2
    return patches.reshape(B, rows, columns, p, p, C).permute(0, 5, 1, 3, 2, 4).reshape(B, C, height, width)


def normalized_patches(patches: Tensor) -> Tensor:
    """Each patch (..., E) with mean 0 and variance 1 over its own pixels, in float32 at least: MAE's better target
    (arXiv 2111.06377, section 3, "reconstruction target").

    Raises:
        ValueError: patches of a single number, which do not vary.
    """
    if patches.shape[-1] < 2:
        raise ValueError(f"patches of {patches.shape[-1]} number have no variance: they take at least 2")
    with torch.autocast(patches.device.type, enabled=False):
        variance, mean = torch.var_mean(widened(patches), -1, keepdim=True)
        return (patches - mean) / (variance + PATCH_EPS).sqrt()


def mae(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared error over the hidden patches (MAE, arXiv 2111.06377, section 3).

    Args:
        prediction: (B, N, E); gradients reach it.
        target: (B, N, E), of `patchify`, and of `normalized_patches` where the method says so.
        mask: (B, N) bool, true where a patch was hidden; None where the hidden ones alone are given.

    Returns:
        0-d; 0 where nothing was hidden.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check(prediction, target, mask)
    with torch.autocast(prediction.device.type, enabled=False):
        return _mean_over_hidden((widened(prediction) - widened(target)).square(), mask)


def simmim(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean absolute error over the hidden patches (SimMIM, arXiv 2111.09886, equation 1).

    As `mae` in everything else; its target is the pixels as the network sees them.
    """
    _check(prediction, target, mask)
    with torch.autocast(prediction.device.type, enabled=False):
        return _mean_over_hidden((widened(prediction) - widened(target)).abs(), mask)


def _mean_over_hidden(error: Tensor, mask: Tensor | None) -> Tensor:
    of_patches = error.mean(-1)  # (B, N)
    if mask is None:
        return of_patches.mean()
    return (of_patches * mask).sum() / mask.sum().clamp_min(1)


def _check(prediction: Tensor, target: Tensor, mask: Tensor | None) -> None:
    if prediction.ndim != 3 or prediction.shape != target.shape or 0 in prediction.shape:
        raise ValueError(f"both must be (B, N, E), not {tuple(prediction.shape)} and {tuple(target.shape)}")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != prediction.shape[:2]):
        raise ValueError(f"the mask must be {tuple(prediction.shape[:2])} bools, not {tuple(mask.shape)} {mask.dtype}")
