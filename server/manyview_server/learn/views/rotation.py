"""Rotation around the center, each view by its own angle, on color planes (3, N, o, o).

Shapes: N views, o pixels on a side.

As torchvision's ``rotate`` does by default: the nearest pixel, the size kept, black where nothing comes from.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


def rotate(planes: Tensor, angle: Tensor) -> Tensor:
    """Planes (3, N, o, o) rotated counter-clockwise by `angle` (N,) degrees."""
    radians = angle * (torch.pi / 180)
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    # Where each pixel of the result comes from; the y axis points down.
    theta = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    images = planes.transpose(0, 1)  # (N, 3, o, o)
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False).transpose(0, 1)
