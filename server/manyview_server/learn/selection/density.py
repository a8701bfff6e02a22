"""Typicality: rows that are close to many others come first.

Shapes: N rows, D features, K neighbors.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from manyview_server.learn.selection.arguments import check_count, check_rows, free_rows
from manyview_server.learn.selection.distances import CHUNK_FLOATS, nearest, pairwise
from manyview_server.learn.selection.selection import Selection

NUM_NEIGHBORS = 20
"""The number of neighbors in the paper."""
SMALLEST_DISTANCE = 1e-6
"""Smaller mean distances count as this one, so that typicality is finite for rows that equal all their neighbors."""
COPY_FRACTION = 1 / 10
"""Rows are copies of one image if their distance is at most this fraction of the root mean square distance of all rows.

Measured with an untrained ResNet-18 on 300 photographs of clothing: 0.02 to a copy of JPEG quality 60, 0.09 to one that
is shifted by two pixels (medians), and at least 0.23 to another photograph."""


def typicality(
    rows: Tensor, count: int, *, num_neighbors: int = NUM_NEIGHBORS, chosen: Tensor | None = None
) -> Selection:
    """Select the most typical rows, spread over the dense places (TypiClust, Hacohen et al., arXiv 2202.02794, eq. 1).

    Typicality is the inverse of the mean distance to the K nearest rows. The neighborhood of a row is its K nearest
    rows and all of its copies, however many there are. Rows in the neighborhood of a selected one wait until all rows
    that are left are in such a neighborhood; then the next round starts. Copies of a selected row wait until nothing
    else is left.

    Differs from the paper: there each round takes one row of each cluster of k-means. Neighborhoods have the same
    effect, without a number of clusters to choose and without randomness.

    Args:
        rows: (N, D). Time: N * N * D.
        count: at most the rows that are not chosen.
        num_neighbors: K, or all other rows if there are fewer.
        chosen: (c,) int64 rows that are selected already. Their neighbors wait in the first round, and their copies
            wait until nothing else is left.

    Returns:
        The scores are typicalities.

    Raises:
        ValueError: `count` is too large, `num_neighbors` is below 1, or a `chosen` row does not exist.
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
    neighborhoods = _Neighborhoods(rows, distances, neighbors)
    selected = _spread(order[free[order]].tolist(), neighborhoods, start, count)
    found = torch.tensor(selected, dtype=torch.int64, device=rows.device)
    return Selection(rows=found, scores=typical[found])


class _Neighborhoods:
    """The rows that are near to each row, and the copies among them."""

    def __init__(self, rows: Tensor, distances: Tensor, neighbors: Tensor) -> None:
        """`distances` and `neighbors`, (N, K), are those of the K nearest."""
        self._rows = rows
        self._copy_distance = COPY_FRACTION * _root_mean_square_distance(rows)
        self._neighbors = neighbors.cpu()
        self._are_copies = (distances <= self._copy_distance).cpu()  # (N, K)

    def nearest(self, row: int) -> list[int]:
        """Return the K nearest rows."""
        found: list[int] = self._neighbors[row].tolist()
        return found

    def copies(self, row: int) -> list[int]:
        """Return the copies of a row. If all K nearest are copies, there may be more, and all rows are compared."""
        of_nearest = self._are_copies[row]
        if not of_nearest.all():
            found: list[int] = self._neighbors[row][of_nearest].tolist()
            return found
        size = max(1, CHUNK_FLOATS // max(1, self._rows.shape[1]))
        parts = [pairwise(part, self._rows[row]) <= self._copy_distance for part in torch.split(self._rows, size)]
        return [other for other in torch.cat(parts).nonzero()[:, 0].tolist() if other != row]


def _root_mean_square_distance(rows: Tensor) -> float:
    """Return the distance of two random rows: the root of twice the mean squared distance to the mean row."""
    mean = rows.mean(0, dtype=torch.float64)
    size = max(1, CHUNK_FLOATS // max(1, rows.shape[1]))
    squared = sum(float((part.double() - mean).square().sum()) for part in torch.split(rows, size))
    return math.sqrt(2 * squared / len(rows))


def _spread(candidates: list[int], neighborhoods: _Neighborhoods, chosen: list[int], count: int) -> list[int]:
    """Return `count` candidates in their order, except that some wait for the next round or for the turn of copies."""
    selected: list[int] = []
    covered = {near for row in chosen for near in neighborhoods.nearest(row)}
    copies = {copy for row in chosen for copy in neighborhoods.copies(row)}
    while len(selected) < count:
        waiting = []
        for row in candidates:
            if row in covered or row in copies or len(selected) == count:
                waiting.append(row)
            else:
                selected.append(row)
                covered.update(neighborhoods.nearest(row))
                copies.update(neighborhoods.copies(row))
        candidates, covered = waiting, set()
        if copies.issuperset(candidates):
            copies = set()
    return selected
