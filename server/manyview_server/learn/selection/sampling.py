"""Any rows: what every other strategy has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from manyview_server.learn.selection.selection import Selection, check_count, free_rows


def random(num_rows: int, count: int, *, seed: int, chosen: Tensor | None = None) -> Selection:
    """`count` rows, each as likely as any other. A smaller count of the same seed gives the first of them.

    Raises:
        ValueError: more than there are, or `chosen` rows that are not there.
    """
    free = free_rows(num_rows, chosen)
    check_count(count, free)
    order = shuffled(num_rows, seed)
    device = "cpu" if chosen is None else chosen.device
    rows = order[free[order]][:count].to(device)
    return Selection(rows=rows, scores=torch.full((count,), torch.nan, device=device))


def shuffled(num_rows: int, seed: int) -> Tensor:
    """(N,) every row once, on the CPU: the same for every device."""
    return torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed))
