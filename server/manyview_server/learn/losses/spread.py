"""Projections spread evenly over the sphere.

Shapes: B batch, P projection.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manyview_server.learn.losses.normalize import unit

DISTANCE_EPS = 1e-8
"""Equal rows have this distance and not 0, so that logarithm and gradient are finite."""


def koleo(z: Tensor) -> Tensor:
    """The Kozachenko-Leonenko estimate of minus the entropy (arXiv 1806.03198, equation 2; DINOv2, arXiv 2304.07193).

    Args:
        z: (B, P) projections of one view, of any length; gradients reach each row and its neighbour.

    Returns:
        0-d: minus the mean logarithm of each row's distance to the nearest other one; 0 for B = 1, which has none.

    Raises:
        ValueError: projections that are not (B, P).
    """
    if z.ndim != 2 or len(z) == 0:
        raise ValueError(f"projections must be (B, P), not {tuple(z.shape)}")
    with torch.autocast(z.device.type, enabled=False):
        u = unit(z)
        if len(u) == 1:
            return 0 * u.sum()
        with torch.no_grad():
            nearest = (u @ u.T).fill_diagonal_(-2).argmax(1)  # (B,)
        distance = torch.linalg.vector_norm(u - u[nearest] + DISTANCE_EPS, dim=1)
        loss: Tensor = -(distance + DISTANCE_EPS).log().mean()
        return loss
