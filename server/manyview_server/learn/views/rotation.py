"""Rotation around the center with an angle for each view, on color planes (3, N, o, o).

Shapes: N views, o pixels on a side.

It works like torchvision's ``rotate`` by default: nearest pixel, the same size, and black outside the image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


def rotate(planes: Tensor, angle: Tensor) -> Tensor:
    """Rotate planes (3, N, o, o) counter-clockwise by `angle` (N,) degrees."""
    radians = angle * (torch.pi / 180)
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    # The place that each pixel of the result comes from; the y axis points down.
    theta = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    images = planes.transpose(0, 1)  # (N, 3, o, o)
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False).transpose(0, 1)
