"""Which patches of an image are hidden, as a pure function of (seed, epoch, image id).

Shapes: B images, h x w the grid of patches, N = h w patches row by row, M of them hidden, K = N - M kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manyview_server.learn import counter_random

STREAM = "hidden patches"
"""No plugin's transform has a name with a space: the numbers here are nobody else's."""


def num_hidden(num_patches: int, ratio: float) -> int:
    """How many of so many patches are hidden: the nearest number to `ratio` of them, but one at least, and not all."""
    return min(max(1, round(ratio * num_patches)), num_patches - 1)


def split_patches(image_ids: Tensor, num_patches: int, ratio: float, *, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
    """Patches in two heaps: those that are kept (B, K) and those that are hidden (B, M), int64, in random order.

    Every image hides equally many (MAE, arXiv 2111.06377, section 3, "masking").
    """
    drawn = counter_random.uniforms(image_ids, seed=seed, epoch=epoch, num_draws=num_patches, stream=STREAM)[0]
    order = drawn.argsort(dim=1, stable=True)  # (B, N)
    hidden = num_hidden(num_patches, ratio)
    return order[:, hidden:], order[:, :hidden]


def block_mask(image_ids: Tensor, grid: tuple[int, int], ratio: float, *, block: int, seed: int, epoch: int) -> Tensor:
    """(B, N) bool, true where a patch is hidden: squares of `block` x `block` patches, hidden whole (SimMIM, arXiv
    2111.09886, section 3.2). Where they do not tile the grid, the last ones are cut off by its edge.
    """
    height, width = (-(-side // block) for side in grid)
    _, hidden = split_patches(image_ids, height * width, ratio, seed=seed, epoch=epoch)
    blocks = torch.zeros(len(image_ids), height * width, dtype=torch.bool, device=image_ids.device)
    blocks = blocks.scatter(1, hidden, True).view(-1, height, width)
    patches: Tensor = blocks.repeat_interleave(block, 1).repeat_interleave(block, 2)
    return patches[:, : grid[0], : grid[1]].flatten(1)
