"""What a strategy hands out, and the checks that all of them share.

Shapes: N rows, k of them selected.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Rows in the order in which they were selected: what is best for a smaller number comes first."""

    rows: Tensor
    """(k,) int64, on the device of the input."""
    scores: Tensor
    """(k,) floats: what the strategy says of each; NaN where it says nothing."""

    def __len__(self) -> int:
        return len(self.rows)


def free_rows(num_rows: int, chosen: Tensor | None) -> Tensor:
    """(N,) bool, on the CPU: which rows are not `chosen` yet. Raises ValueError for one that is not there."""
    free = torch.ones(num_rows, dtype=torch.bool)
    if chosen is not None and len(chosen):
        if chosen.min() < 0 or chosen.max() >= num_rows:
            raise ValueError(f"chosen rows must be from 0 to {num_rows - 1}, not {int(chosen.min())} to {chosen.max()}")
        free[chosen.cpu()] = False
    return free


def check_count(count: int, free: Tensor) -> None:
    """Raise ValueError where fewer rows are free than are to be selected."""
    if not 0 <= count <= int(free.sum()):
        raise ValueError(f"count must be from 0 to {int(free.sum())}, the rows that are not chosen yet, not {count}")


def check_rows(rows: Tensor, name: str = "rows") -> None:
    """Raise ValueError for what is no matrix of float32 or float64. That all are finite is for the caller to see to."""
    if rows.ndim != 2 or rows.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be (N, D) of float32 or float64, not {tuple(rows.shape)} of {rows.dtype}")
