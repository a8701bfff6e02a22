"""Farthest first: each selected row is the one that is farthest from all rows selected before it.

Shapes: N rows, D features.

With a number of rows to select, this is the greedy k-center algorithm (Gonzalez 1985; the coreset of Sener and
Savarese, arXiv 1708.00489, algorithm 1): no row is farther from the selected ones than twice the smallest such distance
that any selection of that size can have. With a distance, it keeps selected rows apart, and stops when every row is
within that distance of a selected one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from manyview_server.learn.selection.arguments import check_count, check_rows, free_rows
from manyview_server.learn.selection.distances import CHUNK_DISTANCES, CHUNK_FLOATS, PRODUCT_ERROR, pairwise
from manyview_server.learn.selection.sampling import shuffled
from manyview_server.learn.selection.selection import Selection

ROUND_ROWS = 64
"""Largest number of rows selected between two passes over all rows."""


def coreset(rows: Tensor, count: int, *, seed: int, chosen: Tensor | None = None) -> Selection:
    """Select `count` rows such that every row is near a selected or `chosen` one. Time: count * N * D.

    Args:
        rows: (N, D).
        count: at most the number of rows that are not chosen.
        seed: determines the first row if nothing is chosen. No other choice is random.
        chosen: (c,) int64 rows that are selected already.

    Returns:
        The scores are distances to the nearest row selected before, descending; infinite for the first.

    Raises:
        ValueError: `count` is too large, or a `chosen` row does not exist.
    """
    check_rows(rows)
    check_count(count, free_rows(len(rows), chosen))
    return _farthest_first(rows, count, -1.0, seed, chosen)


def minimum_distance(
    rows: Tensor, distance: float, *, seed: int, count: int | None = None, chosen: Tensor | None = None
) -> Selection:
    """Select rows that are farther than `distance` from each other and from the `chosen` ones, until no remaining row
    is.

    With a `count`, select at most that many, the farthest first. Everything else is as in `coreset`.
    """
    check_rows(rows)
    if not distance >= 0:
        raise ValueError(f"distance must be at least 0, not {distance}")
    free = free_rows(len(rows), chosen)
    if count is not None:
        check_count(count, free)
    return _farthest_first(rows, int(free.sum()) if count is None else count, distance, seed, chosen)


def _farthest_first(rows: Tensor, most: int, distance: float, seed: int, chosen: Tensor | None) -> Selection:
    reach = Reach(rows)
    before = torch.empty(0, dtype=torch.int64) if chosen is None else chosen
    for start in range(0, len(before), ROUND_ROWS):
        reach.select(before[start : start + ROUND_ROWS].to(rows.device))
    found: list[tuple[int, float]] = []
    if most and not len(before):
        found = [(int(shuffled(len(rows), seed)[0]), torch.inf)]
        reach.select(_rows_of(found, rows))
    while len(found) < most and (more := reach.farthest(most - len(found), distance)):
        found += more
        if len(found) < most:
            reach.select(_rows_of(more, rows))
    scores = torch.tensor([score for _, score in found], dtype=rows.dtype, device=rows.device)
    return Selection(rows=_rows_of(found, rows), scores=scores)


class Reach:
    """The distance of each row to the nearest selected row."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows
        self._lengths = rows.square().sum(1)
        self._longest = float(self._lengths.max()) if len(rows) else 0.0
        self._distances = rows.new_full((len(rows),), torch.inf)
        """(N,): the distance to the nearest selected row, infinite if none is selected; -infinity for selected rows."""

    def farthest(self, most: int, distance: float) -> list[tuple[int, float]]:
        """Return up to `most` next rows with their distances, each the farthest from all rows before it. An empty list
        means that no remaining row is farther than `distance`.

        One pass over all rows serves several of these rows. A selected row only brings others nearer, so the farthest
        of the candidates is the next row as long as it is farther than every row that is not a candidate.
        """
        bound = self._distances.topk(min(ROUND_ROWS + 1, len(self._rows))).values[-1]
        candidates = (self._distances > bound).nonzero()[:, 0]
        if len(candidates) == 0:  # many rows are equally far
            candidates = self._distances.argmax()[None]  # the first of them
        own = self._rows[candidates]
        between = torch.stack([pairwise(own, row) for row in own]).cpu().numpy()  # not all (m, m, D) at once
        reach, least = self._distances[candidates].cpu().numpy(), float(bound)
        found: list[tuple[int, float]] = []
        while len(found) < most:
            best = int(reach.argmax())  # the first of equal ones
            score = float(reach[best])
            if score <= distance or (found and score <= least):
                break
            found.append((int(candidates[best]), score))
            reach = np.minimum(reach, between[best])
            reach[best] = -np.inf
        return found

    def select(self, selected: Tensor) -> None:
        """Mark these rows, (m,), as selected."""
        own, lengths = self._rows[selected], self._lengths[selected]
        error = 2 * PRODUCT_ERROR * (self._longest + float(lengths.max()))
        size = max(1, CHUNK_DISTANCES // len(selected))
        for start in range(0, len(self._rows), size):
            chunk, distances = self._rows[start : start + size], self._distances[start : start + size]
            both = self._lengths[start : start + size, None] + lengths
            squared = torch.addmm(both, chunk, own.T, alpha=-2)  # (n, m)
            nearer = torch.minimum(squared.min(1).values, distances.clamp_min(0).square()) + error
            row, other = (squared <= nearer[:, None]).nonzero(as_tuple=True)
            for part in torch.split(torch.arange(len(row), device=row.device), max(1, CHUNK_FLOATS // chunk.shape[1])):
                exact = pairwise(chunk[row[part]], own[other[part]])
                distances.scatter_reduce_(0, row[part], exact, "amin")
        self._distances[selected] = -torch.inf


def _rows_of(found: list[tuple[int, float]], rows: Tensor) -> Tensor:
    return torch.tensor([row for row, _ in found], dtype=torch.int64, device=rows.device)
