"""Farthest first: each row is the one that is farthest from all before it.

Shapes: N rows, D features.

With a number to select this is the greedy k-center algorithm (Gonzalez 1985; the coreset of Sener and Savarese, arXiv
1708.00489, algorithm 1): no row is farther from the selected ones than twice the least distance that any selection of
that number could have. With a distance it keeps rows apart, and stops when every row is within it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from manyview_server.learn.selection.distances import CHUNK_DISTANCES, CHUNK_FLOATS, PRODUCT_ERROR, pairwise
from manyview_server.learn.selection.sampling import shuffled
from manyview_server.learn.selection.selection import Selection, check_count, check_rows, free_rows

ROUND_ROWS = 64
"""Selected at most between two passes over all rows."""


def coreset(rows: Tensor, count: int, *, seed: int, chosen: Tensor | None = None) -> Selection:
    """`count` rows that leave none far from all of them and of the `chosen` ones. Time: count * N * D.

    Args:
        rows: (N, D).
        count: at most the rows that are not chosen.
        seed: gives the first row where nothing is chosen; no other choice is left to chance.
        chosen: (c,) int64 rows that are selected already.

    Returns:
        The scores are distances to the nearest row selected before, descending; infinite for the first.

    Raises:
        ValueError: more than there are, or `chosen` rows that are not there.
    """
    check_rows(rows)
    check_count(count, free_rows(len(rows), chosen))
    return _farthest_first(rows, count, -1.0, seed, chosen)


def minimum_distance(
    rows: Tensor, distance: float, *, seed: int, count: int | None = None, chosen: Tensor | None = None
) -> Selection:
    """As many rows as are farther than `distance` from each other and from the `chosen` ones; none is left that is.

    With `count` at most so many, the farthest first. The rest is as in `coreset`.
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
    while len(found) < most and (following := reach.farthest(most - len(found), distance)):
        found += following
        if len(found) < most:
            reach.select(_rows_of(following, rows))
    scores = torch.tensor([score for _, score in found], dtype=rows.dtype, device=rows.device)
    return Selection(rows=_rows_of(found, rows), scores=scores)


class Reach:
    """How far each row is from all that are selected."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows
        self._lengths = rows.square().sum(1)
        self._longest = float(self._lengths.max()) if len(rows) else 0.0
        self._distances = rows.new_full((len(rows),), torch.inf)
        """(N,): to the nearest selected row; below every distance for those that are selected."""

    def farthest(self, most: int, distance: float) -> list[tuple[int, float]]:
        """The next rows and their distances, each the farthest from those before it, up to `most`; none are left where
        there is none.

        Among the farthest rows of now, each is the next as long as it is farther than all others are: what is selected
        brings rows nearer and never farther. That saves a pass over all rows for each.
        """
        bound = self._distances.topk(min(ROUND_ROWS + 1, len(self._rows))).values[-1]
        candidates = (self._distances > bound).nonzero()[:, 0]
        if len(candidates) == 0:  # many are equally far
            candidates = self._distances.argmax()[None]  # the first of them
        own = self._rows[candidates]
        between = torch.stack([pairwise(own, row) for row in own]).cpu().numpy()  # not all (m, m, D) at once
        reach, least = self._distances[candidates].cpu().numpy(), float(bound)
        found: list[tuple[int, float]] = []
        while len(found) < most:
            best = int(reach.argmax())  # of equal ones the first
            score = float(reach[best])
            if score <= distance or (found and score <= least):
                break
            found.append((int(candidates[best]), score))
            reach = np.minimum(reach, between[best])
            reach[best] = -np.inf
        return found

    def select(self, selected: Tensor) -> None:
        """Take note that these rows, (m,), are selected."""
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
