"""The pixels of hidden patches are predicted.

Shapes: B batch, H W image, p patch size, N patches (H/p W/p), E values of a patch (p p 3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from manyview_server.learn.normalize import at_least_float32

PATCH_EPS = 1e-6
"""Added to the variance of a patch, so that a patch of one color has a target of zeros."""


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut images (B, 3, H, W) into patches (B, N, E): patches row by row from the top, in each its pixels row by row,
    in each pixel its channels. Any number of channels is accepted.

    Raises:
        ValueError: images that are not (B, 3, H, W), or whose sides are not multiples of the patch size.
    """
    if images.ndim != 4:
        raise ValueError(f"images must be (B, 3, H, W), not {tuple(images.shape)}")
    p, (B, C, H, W) = patch_size, images.shape
    if p < 1 or H % p or W % p:
        raise ValueError(f"patches of {p} pixels do not tile images of {H} x {W}")
    return images.reshape(B, C, H // p, p, W // p, p).permute(0, 2, 4, 3, 5, 1).reshape(B, H * W // p**2, p * p * C)


def normalized_patches(patches: Tensor) -> Tensor:
    """Shift and scale each patch (..., E) to mean 0 and variance 1 over its own pixels, in float32 at least: MAE's
    better target (arXiv 2111.06377, section 3, "reconstruction target").

    Raises:
        ValueError: patches of a single value, which have no variance.
    """
    if patches.shape[-1] < 2:
        raise ValueError(f"patches of {patches.shape[-1]} value have no variance: they need at least 2")
    with torch.autocast(patches.device.type, enabled=False):
        variance, mean = torch.var_mean(at_least_float32(patches), -1, keepdim=True)
        return (patches - mean) / (variance + PATCH_EPS).sqrt()


def mae(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared error over the hidden patches (MAE, arXiv 2111.06377, section 3).

    Args:
        prediction: (B, N, E); gradients reach it.
        target: (B, N, E), from `patchify` or `normalized_patches`.
        mask: (B, N) bool, true for hidden patches; None if only the hidden patches are given.

    Returns:
        0-d; 0 if nothing was hidden.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check(prediction, target, mask)
    with torch.autocast(prediction.device.type, enabled=False):
        return _mean_over_hidden((at_least_float32(prediction) - at_least_float32(target)).square(), mask)


def simmim(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean absolute error over the hidden patches (SimMIM, arXiv 2111.09886, equation 1).

    Everything else is as in `mae`. The target is the pixels as the network sees them.
    """
    _check(prediction, target, mask)
    with torch.autocast(prediction.device.type, enabled=False):
        return _mean_over_hidden((at_least_float32(prediction) - at_least_float32(target)).abs(), mask)


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
