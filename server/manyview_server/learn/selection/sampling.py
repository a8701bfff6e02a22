"""Random rows: the baseline that every other strategy has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from manyview_server.learn.selection.arguments import check_count, free_rows
from manyview_server.learn.selection.selection import Selection


def random(num_rows: int, count: int, *, seed: int, chosen: Tensor | None = None) -> Selection:
    """Select `count` rows at random, all equally likely. A smaller count with the same seed gives a prefix.

    Raises:
        ValueError: `count` is too large, or a `chosen` row does not exist.
    """
    free = free_rows(num_rows, chosen)
    check_count(count, free)
    order = shuffled(num_rows, seed)
    device = "cpu" if chosen is None else chosen.device
    rows = order[free[order]][:count].to(device)
    return Selection(rows=rows, scores=torch.full((count,), torch.nan, device=device))


def shuffled(num_rows: int, seed: int) -> Tensor:
    """Return (N,), a permutation of the rows, on the CPU so that it is the same for every device."""
    return torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed))
