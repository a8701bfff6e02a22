"""Compare two losses: their values, and their gradients with respect to all inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-5}
"""Relative to the size of a value or a gradient if that is above 1, otherwise absolute."""


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return random numbers, the same for the same seed. Those in float32 are the rounded ones of float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def assert_losses_agree(
    ours: Callable[..., Tensor], theirs: Callable[..., Tensor], inputs: Sequence[Tensor], tolerance: float
) -> None:
    """Compare both losses of the same inputs, and both gradients with respect to each input."""
    value, gradients = _differentiated(ours, inputs)
    expected, expected_gradients = _differentiated(theirs, inputs)
    assert_near(value, expected, tolerance)
    for gradient, of_theirs in zip(gradients, expected_gradients, strict=True):
        assert_near(gradient, of_theirs, tolerance)


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Compare tensors by the length of their difference."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} and {tuple(theirs.shape)}"
    distance = torch.linalg.vector_norm(ours - theirs).item()
    size = torch.linalg.vector_norm(theirs).item()
    assert distance <= tolerance * max(1.0, size), f"{distance:.3g} apart, of a size of {size:.3g}"


def _differentiated(loss: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    value = loss(*leaves).squeeze()
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    return value.detach(), [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients, strict=True)]
