"""Collapse: all images at the same place, which some losses cannot see.

Shapes: B batch, D feature or projection width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def representation_std(features: Tensor) -> Tensor:
    """Standard deviation of the L2-normalised rows, per dimension over the batch, then averaged (SimSiam, arXiv
    2011.10566, section 4.1).

    0 where all rows point the same way; `healthy_std` where they are spread evenly over the sphere.

    Args:
        features: (B, D), of any float type; computed in float32 at least.

    Returns:
        0-d, on the device. 0 for a batch of one, which has no spread.

    Raises:
        ValueError: features that are not (B, D).
    """
    if features.ndim != 2 or len(features) == 0:
        raise ValueError(f"features must be (B, D), not {tuple(features.shape)}")
    unit = F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=1)
    if len(unit) == 1:
        return unit.new_zeros(())
    return unit.std(dim=0).mean()


def healthy_std(dim: int) -> float:
    """1 / sqrt(D), what `representation_std` is for isotropic features of width `dim`."""
    return 1 / math.sqrt(dim)
