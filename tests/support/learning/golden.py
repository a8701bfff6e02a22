"""Inputs for which the values of the reference are known (lightly 1.5.26, float64), and the values to compare with
them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def waves(rows: int, columns: int, phase: float) -> Tensor:
    """Return sin(0.37 (i D + j) + phase), (rows, D) float64."""
    return torch.sin(0.37 * torch.arange(rows * columns, dtype=torch.float64) + phase).view(rows, columns)


def value_and_gradient_norm(loss: Callable[[Tensor], Tensor], z: Tensor) -> tuple[float, float]:
    """Return the loss of `z`, and the length of its gradient."""
    z = z.detach().clone().requires_grad_()
    value = loss(z)
    (gradient,) = torch.autograd.grad(value, z)
    return value.item(), gradient.norm().item()
