"""Balanced selection: a number of rows for each class, and a strategy within each class.

Shapes: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from manyview_server.learn.selection.selection import Selection

Strategy = Callable[[Tensor, int], Selection]
"""Selects a number of rows among the candidates, (n,) int64 rows. The result holds positions within the candidates."""


def equal_budgets(available: Tensor, count: int) -> Tensor:
    """Return (C,) int64, the same number for each class. What a small class lacks is shared by the others, lower
    classes first.

    Args:
        available: (C,) int64, the number of rows that each class has.
        count: at most the sum of `available`.
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
    """Return (C,) int64, a number for each class in proportion to its rows: by largest remainders, ties by index."""
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
    """Select `budgets[c]` rows of each class c by the strategy within the class, and mix the classes evenly.

    A prefix is about as balanced as the whole: it holds about the same share of each class's budget.

    Args:
        classes: (N,) int64. Rows of a class without a budget, such as -1, are left out.
        strategy: called once for each class, with its rows; see `Strategy`.
        free: (N,) bool, the rows that may be selected.

    Raises:
        ValueError: a class has fewer rows than its budget, or the strategy raises it.
    """
    parts = []
    for number in sorted(number for number, budget in budgets.items() if budget):
        candidates = ((classes == number) & free).nonzero()[:, 0]
        if len(candidates) < budgets[number]:
            raise ValueError(
                f"class {number} has {len(candidates)} of the {budgets[number]} rows that its budget asks for"
            )
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
