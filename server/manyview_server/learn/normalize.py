"""Conversions that losses and measures of features apply to their inputs first.

Shapes: ... any, N rows, P projection.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

UNIT_EPS = 1e-8
"""Smallest length by which a loss divides a row, so that gradients stay finite."""


def at_least_float32(x: Tensor) -> Tensor:
    """Return the same values (...) in float32, or unchanged if their type is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def unit_rows(z: Tensor, eps: float = UNIT_EPS) -> Tensor:
    """Scale rows (N, P) to length 1, in float32 at least. Rows shorter than `eps` are divided by `eps`, so that rows of
    zeros stay zeros.
    """
    return F.normalize(at_least_float32(z), dim=1, eps=eps)
