"""The axes of a projection must hold different information. No images repel, and batches may be small.

Shapes: B batch, P projection.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from manyview_server.learn.normalize import at_least_float32

BATCH_NORM_EPS = 1e-5
VICREG_EPS = 1e-4
"""Added under the square root, so that the gradient of a constant column is finite."""


def barlow_twins(z0: Tensor, z1: Tensor, off_diagonal_weight: float = 5e-3) -> Tensor:
    """Push the cross-correlation of two views' projections towards the identity (Barlow Twins, arXiv 2103.03230,
    equation 1).

    Args:
        z0, z1: (B, P) projections of two views of the same images; gradients reach both.
        off_diagonal_weight: lambda.

    Returns:
        0-d: sum_i (C_ii - 1)^2 + lambda sum_{i != j} C_ij^2. A constant column correlates with nothing.

    Raises:
        ValueError: shapes that differ or are not (B, P).
    """
    _check(z0, z1, least=1)
    with torch.autocast(z0.device.type, enabled=False):
        z0, z1 = _standardized(z0), _standardized(z1)
        diagonal = (z0 * z1).mean(0)  # (P,)
        on = (diagonal - 1).square().sum()
        squares: Tensor = _SquaredProducts.apply(z0, z1)
        off = squares / len(z0) ** 2 - diagonal.square().sum()
        return on + off_diagonal_weight * off


def vicreg(
    z0: Tensor,
    z1: Tensor,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
) -> Tensor:
    """Variance, invariance, covariance (VICReg, arXiv 2105.04906, equation 6).

    Args:
        z0, z1: (B, P) projections of two views of the same images, B at least 2; gradients reach both.

    Returns:
        0-d: lambda times the mean squared difference, plus mu times the mean shortfall of each axis' standard deviation
        below 1, plus nu times the sum of squared covariances off the diagonal divided by P.

    Raises:
        ValueError: shapes that differ or are not (B, P), or a batch of one, which has no variance.
    """
    _check(z0, z1, least=2)
    with torch.autocast(z0.device.type, enabled=False):
        z0, z1 = at_least_float32(z0), at_least_float32(z1)
        invariance = F.mse_loss(z0, z1)
        variance = (_hinge(z0) + _hinge(z1)) / 2
        covariance = _off_diagonal_covariance(z0) + _off_diagonal_covariance(z1)
        return invariance_weight * invariance + variance_weight * variance + covariance_weight * covariance


def _hinge(z: Tensor) -> Tensor:
    return F.relu(1 - (z.var(0) + VICREG_EPS).sqrt()).mean()


def _off_diagonal_covariance(z: Tensor) -> Tensor:
    z = z - z.mean(0)
    variance = z.square().sum(0) / (len(z) - 1)  # (P,)
    squares: Tensor = _SquaredProducts.apply(z, None)
    return (squares / (len(z) - 1) ** 2 - variance.square().sum()) / z.shape[1]


class _SquaredProducts(torch.autograd.Function):
    """The sum of the squares of z0^T z1 (P, P), 0-d.

    It is also the sum of (z0 z0^T) * (z1 z1^T), which are (B, B). The smaller matrices are computed: with 256 images
    and an axis of 2,048 that takes an eighth of the products. Each view's gradient is one product, because the matrices
    are symmetric; autograd would compute two.
    """

    @staticmethod
    def forward(ctx: Any, z0: Tensor, z1: Tensor | None) -> Tensor:
        """Take z1 = z0 if it is None, at half the cost."""
        other = z0 if z1 is None else z1
        ctx.own, ctx.small = z1 is None, len(z0) < z0.shape[1]
        if ctx.small:
            of_z0 = z0 @ z0.T  # (B, B)
            of_other = of_z0 if z1 is None else z1 @ z1.T
            ctx.save_for_backward(z0, other, of_z0, of_other)
            return (of_z0 * of_other).sum()
        c = z0.T @ other  # (P, P)
        ctx.save_for_backward(z0, other, c)
        return c.square().sum()

    @staticmethod
    def backward(ctx: Any, grad_sum: Tensor) -> tuple[Tensor, Tensor | None]:
        z0, other, *matrices = ctx.saved_tensors
        if ctx.small:
            of_z0, of_other = matrices
            grad_z0 = of_other @ z0
            grad_other = None if ctx.own else of_z0 @ other
        else:
            (c,) = matrices
            grad_z0 = other @ c.T
            grad_other = None if ctx.own else z0 @ c
        if grad_other is None:
            return 4 * grad_sum * grad_z0, None
        return 2 * grad_sum * grad_z0, 2 * grad_sum * grad_other


def _standardized(z: Tensor) -> Tensor:
    """Shift and scale each column to mean 0 and variance 1 over the batch, like a batch norm without weights."""
    z = at_least_float32(z)
    return (z - z.mean(0)) / (z.var(0, unbiased=False) + BATCH_NORM_EPS).sqrt()


def _check(z0: Tensor, z1: Tensor, *, least: int) -> None:
    if z0.ndim != 2 or z0.shape != z1.shape or len(z0) == 0:
        raise ValueError(f"both projections must be (B, P), not {tuple(z0.shape)} and {tuple(z1.shape)}")
    if len(z0) < least:
        raise ValueError(f"a batch of {len(z0)} has no variance: at least {least} images are needed")
