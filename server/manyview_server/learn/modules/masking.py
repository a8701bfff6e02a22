"""The choice of an image's hidden patches, as a pure function of (seed, epoch, image id).

Shapes: B images, h x w the grid of patches, N = h w patches row by row, M of them hidden, K = N - M kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manyview_server.learn import counter_random

STREAM = "hidden patches"
"""The stream of random numbers. Names of plugins' transforms hold no space, so no other stream has this name."""


def num_hidden(num_patches: int, ratio: float) -> int:
    """Return the number of hidden patches: the integer nearest to `ratio * num_patches`, but at least one and not
    all."""
    return min(max(1, round(ratio * num_patches)), num_patches - 1)


def split_patches(image_ids: Tensor, num_patches: int, ratio: float, *, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
    """Return the patches that are kept (B, K) and those that are hidden (B, M), int64, in random order.

    The same number is hidden in every image (MAE, arXiv 2111.06377, section 3, "masking").
    """
    drawn = counter_random.uniforms(image_ids, seed=seed, epoch=epoch, num_draws=num_patches, stream=STREAM)[0]
    order = drawn.argsort(dim=1, stable=True)  # (B, N)
    hidden = num_hidden(num_patches, ratio)
    return order[:, hidden:], order[:, :hidden]


def block_mask(image_ids: Tensor, grid: tuple[int, int], ratio: float, *, block: int, seed: int, epoch: int) -> Tensor:
    """Return a mask (B, N) of bools, true for hidden patches. Squares of `block` x `block` patches are hidden as a
    whole (SimMIM, arXiv 2111.09886, section 3.2). If they do not tile the grid, its edge cuts off the last ones.
    """
    height, width = (-(-side // block) for side in grid)
    _, hidden = split_patches(image_ids, height * width, ratio, seed=seed, epoch=epoch)
    blocks = torch.zeros(len(image_ids), height * width, dtype=torch.bool, device=image_ids.device)
    blocks = blocks.scatter(1, hidden, True).view(-1, height, width)
    patches: Tensor = blocks.repeat_interleave(block, 1).repeat_interleave(block, 2)
    return patches[:, : grid[0], : grid[1]].flatten(1)
