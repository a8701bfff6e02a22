"""Typical rows first: those in the midst of many others.

Shapes: N rows, D features, K neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manyview_server.learn.selection.choice import Selection, check_count, check_rows, free_rows
from manyview_server.learn.selection.distances import nearest

NUM_NEIGHBORS = 20
"""As in the paper."""
SMALLEST_DISTANCE = 1e-6
"""Rows that are equal to all their neighbours are that typical, and no more."""


def typicality(
    rows: Tensor, count: int, *, num_neighbors: int = NUM_NEIGHBORS, chosen: Tensor | None = None
) -> Selection:
    """The most typical rows, spread over the dense places (TypiClust, Hacohen et al., arXiv 2202.02794, equation 1).

    Typicality is the inverse of the mean distance to the K nearest rows. A row that is one of the K nearest of a
    selected one waits until all rows that are left are such; then the round begins anew.

    Differs from the paper: there each round takes one row of each cluster of k-means. Neighbourhoods do the same, with
    no number of clusters to choose and nothing left to chance.

    Args:
        rows: (N, D). Time: N * N * D.
        count: at most the rows that are not chosen.
        num_neighbors: K; as many as there are where there are fewer.
        chosen: (c,) int64 rows that are selected already; their neighbours wait in the first round.

    Returns:
        The scores are typicalities.

    Raises:
        ValueError: more than there are, no neighbours, or `chosen` rows that are not there.
    """
    check_rows(rows)
    if num_neighbors < 1:
        raise ValueError(f"num_neighbors must be at least 1, not {num_neighbors}")
    free = free_rows(len(rows), chosen)
    check_count(count, free)
    if len(rows) < 2:
        return Selection(rows=free.nonzero()[:count, 0].to(rows.device), scores=rows.new_full((count,), torch.nan))
    k = min(num_neighbors, len(rows) - 1)
    distances, neighbors = nearest(rows, rows, k, query_rows=torch.arange(len(rows), device=rows.device))
    typical = 1 / distances.mean(1).clamp_min(SMALLEST_DISTANCE)  # (N,)
    order = typical.argsort(descending=True, stable=True).cpu()
    start = [] if chosen is None else chosen.tolist()
    selected = _spread(order[free[order]].tolist(), neighbors.cpu(), start, count)
    found = torch.tensor(selected, dtype=torch.int64, device=rows.device)
    return Selection(rows=found, scores=typical[found])


def _spread(candidates: list[int], neighbors: Tensor, chosen: list[int], count: int) -> list[int]:
    """`count` of the candidates in their order, but for those that wait for the next round."""
    selected: list[int] = []
    covered = {near for row in chosen for near in neighbors[row].tolist()}
    while len(selected) < count:
        waiting = []
        for row in candidates:
            if row in covered or len(selected) == count:
                waiting.append(row)
            else:
                selected.append(row)
                covered.update(neighbors[row].tolist())
        candidates, covered = waiting, set()
    return selected
