"""Position embeddings: the position of a patch as D numbers.

Shapes: h x w the grid of patches, N = h w patches row by row, p tokens before them, D channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_FIRST = 8
"""The most tokens before those of the patches: a class token, one of a distilled network, registers."""


def sines_and_cosines(grid: tuple[int, int], dim: int) -> Tensor:
    """Return fixed positions (1, 1 + N, D), zeros for the class token first, as in MAE (arXiv 2111.06377).

    Half of the channels encode the column and half the row, each as sin(x f_i), then cos(x f_i), with the frequencies
    f_i = 10000^(-4 i / D), i from 0 to D / 4 - 1 ("Attention Is All You Need", arXiv 1706.03762, section 3.5).
    """
    assert dim % 4 == 0, dim
    height, width = grid
    frequencies = 10_000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))

    def encoded(places: Tensor) -> Tensor:
        angles = places.flatten()[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)  # (N, D / 2)

    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64), indexing="ij"
    )
    positions = torch.cat([encoded(columns), encoded(rows)], dim=1)
    return torch.cat([torch.zeros(1, dim), positions.float()])[None]


def fitted(positions: Tensor, own: Tensor) -> Tensor:
    """Resample learned positions (1, p + N, D) of a square grid to the grid of a network's own, with the same p.

    p is the number of tokens without a place: the class token, registers. It follows from N, because both grids are
    squares. Positions that do not fit are returned as they are.
    """
    if positions.shape == own.shape or positions.ndim != 3 or own.ndim != 3 or positions.shape[2] != own.shape[2]:
        return positions
    for num_first in range(MAX_FIRST + 1):
        sides = [math.isqrt(max(0, tensor.shape[1] - num_first)) for tensor in (positions, own)]
        if all(side and side**2 + num_first == t.shape[1] for side, t in zip(sides, (positions, own), strict=True)):
            before, wanted = ((side, side) for side in sides)
            return resampled(positions, before, wanted, num_first)
    return positions


def resampled(positions: Tensor, grid: tuple[int, int], wanted: tuple[int, int], num_first: int = 1) -> Tensor:
    """Resample positions (1, p + N, D) to another grid that covers the same image. The first p stay the same.

    The resampling is bicubic and antialiased, as in timm. It lets DINO (arXiv 2104.14294) pass crops of two sizes
    through one network.
    """
    if grid == wanted:
        return positions
    first, rest = positions[:, :num_first].float(), positions[:, num_first:].float()
    planes = rest.view(1, *grid, -1).permute(0, 3, 1, 2)  # (1, D, h, w)
    planes = F.interpolate(planes, wanted, mode="bicubic", antialias=True)
    return torch.cat([first, planes.permute(0, 2, 3, 1).flatten(1, 2)], dim=1).to(positions.dtype)
