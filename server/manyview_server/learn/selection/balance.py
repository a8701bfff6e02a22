"""A number for each class, and a strategy within each.

Shapes: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from manyview_server.learn.selection.selection import Selection

Strategy = Callable[[Tensor, int], Selection]
"""Selects so many of the candidates, (n,) int64 rows; gives places within them."""


def equal_budgets(available: Tensor, count: int) -> Tensor:
    """(C,) int64: the same number for each class; what a small one lacks is shared by the others, the first first.

    Args:
        available: (C,) int64, how many rows each class has.
        count: at most their sum.
    """
    budgets = torch.zeros_like(available)
    while (left := count - int(budgets.sum())) > 0:
        room = (budgets < available).nonzero()[:, 0]
        if len(room) == 0:
            raise ValueError(f"count must be at most {int(available.sum())}, the rows with a class, not {count}")
        if left < len(room):
            budgets[room[:left]] += 1
        else:
            budgets[room] += (available - budgets)[room].clamp_max(left // len(room))
    return budgets


def proportional_budgets(available: Tensor, count: int) -> Tensor:
    """(C,) int64: as many of each class as it has its share of the rows, by largest remainders, ties by index."""
    total = int(available.sum())
    if not 0 <= count <= total:
        raise ValueError(f"count must be from 0 to {total}, the rows with a class, not {count}")
    if total == 0:
        return torch.zeros_like(available)
    budgets = available * count // total
    rest = (available * count % total).argsort(descending=True, stable=True)[: count - int(budgets.sum())]
    budgets[rest] += 1
    return budgets


def balanced(classes: Tensor, budgets: Mapping[int, int], strategy: Strategy, *, free: Tensor) -> Selection:
    """`budgets[c]` rows of each class c by the strategy within it, the classes' rows evenly mixed.

    A prefix is about as balanced as the whole: of each class about the same share of its budget.

    Args:
        classes: (N,) int64; rows of a class without a budget, such as -1, are left out.
        strategy: asked once for each class, with its rows; see `Strategy`.
        free: (N,) bool, the rows that may be selected.

    Raises:
        ValueError: a class has fewer rows than its budget, or what the strategy raises.
    """
    parts = []
    for number in sorted(number for number, budget in budgets.items() if budget):
        candidates = ((classes == number) & free).nonzero()[:, 0]
        if len(candidates) < budgets[number]:
            raise ValueError(f"class {number} has {len(candidates)} rows to select, not {budgets[number]}")
        found = strategy(candidates, budgets[number])
        parts.append(Selection(rows=candidates.to(found.rows.device)[found.rows], scores=found.scores))
    return _mixed(parts, classes)


def _mixed(parts: list[Selection], classes: Tensor) -> Selection:
    if not parts:
        return Selection(rows=classes.new_empty(0, dtype=torch.int64), scores=torch.empty(0, device=classes.device))
    rows, scores = torch.cat([part.rows for part in parts]), torch.cat([part.scores for part in parts])
    turns = torch.cat([(torch.arange(len(part), device=rows.device).double() + 0.5) / len(part) for part in parts])
    order = turns.argsort(stable=True)
    return Selection(rows=rows[order], scores=scores[order])
