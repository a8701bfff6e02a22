"""What all losses do to their inputs first.

Shapes: ... any, N rows, P projection.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

UNIT_EPS = 1e-8


def widened(x: Tensor) -> Tensor:
    """The same (...) in float32, or as it is where it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def unit(z: Tensor) -> Tensor:
    """Rows (N, P) of length 1, in float32 at least; rows of zeros stay zeros."""
    return F.normalize(widened(z), dim=1, eps=UNIT_EPS)
