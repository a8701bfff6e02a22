"""Position embeddings: the position of a patch as D numbers.

Shapes: h x w the grid of patches, N = h w patches row by row, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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


def resampled(positions: Tensor, grid: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Resample positions (1, 1 + N, D) to another grid that covers the same image. The class token's stays the same.

    The resampling is bicubic and antialiased, as in timm. It lets DINO (arXiv 2104.14294) pass crops of two sizes
    through one network.
    """
    if grid == wanted:
        return positions
    first, rest = positions[:, :1].float(), positions[:, 1:].float()
    planes = rest.view(1, *grid, -1).permute(0, 3, 1, 2)  # (1, D, h, w)
    planes = F.interpolate(planes, wanted, mode="bicubic", antialias=True)
    return torch.cat([first, planes.permute(0, 2, 3, 1).flatten(1, 2)], dim=1).to(positions.dtype)
