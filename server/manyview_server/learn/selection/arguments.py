"""Checks of the arguments that all strategies share.

Shapes: N rows, D features, c rows chosen already.
"""

from __future__ import annotations

import torch
from torch import Tensor


def free_rows(num_rows: int, chosen: Tensor | None) -> Tensor:
    """Return a mask (N,) of bools on the CPU: true for the rows that are not `chosen`, (c,) int64, yet.

    Raises:
        ValueError: a chosen row does not exist.
    """
    free = torch.ones(num_rows, dtype=torch.bool)
    if chosen is not None and len(chosen):
        if chosen.min() < 0 or chosen.max() >= num_rows:
            raise ValueError(f"chosen rows must be from 0 to {num_rows - 1}, not {int(chosen.min())} to {chosen.max()}")
        free[chosen.cpu()] = False
    return free


def check_count(count: int, free: Tensor) -> None:
    """Raise ValueError if fewer rows are free than the selection needs."""
    if not 0 <= count <= int(free.sum()):
        raise ValueError(f"count must be from 0 to {int(free.sum())}, the rows that are not chosen yet, not {count}")


def check_rows(rows: Tensor, name: str = "rows") -> None:
    """Raise ValueError unless `rows` is a matrix (N, D) of float32 or float64. The caller ensures that it is finite."""
    if rows.ndim != 2 or rows.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be (N, D) of float32 or float64, not {tuple(rows.shape)} of {rows.dtype}")
