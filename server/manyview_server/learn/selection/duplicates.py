"""Near-duplicates: groups of rows that are nearly the same.

Shapes: N rows, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manyview_server.learn.selection.arguments import check_rows
from manyview_server.learn.selection.distances import CHUNK_FLOATS, PRODUCT_ERROR, pairwise

BLOCK_ROWS = 1024
"""Rows on each side of a block of pairs: 4 MB of distances, and at most 16 MB of pairs."""


def near_duplicates(rows: Tensor, max_distance: float) -> Tensor:
    """Find the group of each row: the first row that it is connected to through pairs at most `max_distance` apart.

    Groups are connected components: two rows of a group may be far from each other if other rows lie between them. The
    time is N * N * D / 2.

    Args:
        rows: (N, D).
        max_distance: at least 0; 0 finds equal rows.

    Returns:
        (N,) int64: the lowest row of the group. A row without duplicates is its own group.

    Raises:
        ValueError: rows that are not a matrix, or a distance below 0.
    """
    check_rows(rows)
    if not max_distance >= 0:
        raise ValueError(f"max_distance must be at least 0, not {max_distance}")
    first = torch.arange(len(rows), device=rows.device)
    lengths = rows.square().sum(1)
    for top in range(0, len(rows), BLOCK_ROWS):
        for left in range(top, len(rows), BLOCK_ROWS):
            one, other, in_doubt = _candidates(rows, lengths, top, left, max_distance)
            _connect(first, one[~in_doubt], other[~in_doubt])
            _connect_near(first, rows, one[in_doubt], other[in_doubt], max_distance)
    return first


def _candidates(
    rows: Tensor, lengths: Tensor, top: int, left: int, max_distance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pairs of a block that are near by product, and a mask of the pairs that rounding may have decided."""
    upper, lower = slice(top, top + BLOCK_ROWS), slice(left, left + BLOCK_ROWS)
    both = lengths[upper, None] + lengths[lower]
    margin = PRODUCT_ERROR * float(both.max())
    squared = torch.addmm(both, rows[upper], rows[lower].T, alpha=-2)
    limit = max_distance * max_distance  # a product: it overflows to infinity, where a power would raise OverflowError
    one, other = (squared <= limit + margin).nonzero(as_tuple=True)
    return one + top, other + left, squared[one, other] > limit - margin


def _connect_near(first: Tensor, rows: Tensor, one: Tensor, other: Tensor, max_distance: float) -> None:
    """Join the pairs that are near by their exact distance. Pairs within one group are skipped: among equal rows, most
    are."""
    size = max(1, CHUNK_FLOATS // rows.shape[1])
    while len(one):
        apart = first[one] != first[other]
        one, other = one[apart], other[apart]
        near = pairwise(rows[one[:size]], rows[other[:size]]) <= max_distance
        _connect(first, one[:size][near], other[:size][near])
        one, other = one[size:], other[size:]


def _connect(first: Tensor, one: Tensor, other: Tensor) -> None:
    """Join the groups of each pair. Before and after, `first[first]` is `first`: rows point at the lowest row of their
    group."""
    while True:
        a, b = first[one], first[other]
        apart = a != b
        if not apart.any():
            return
        one, other, a, b = one[apart], other[apart], a[apart], b[apart]
        first.scatter_reduce_(0, torch.maximum(a, b), torch.minimum(a, b), "amin")
        while not torch.equal(further := first[first], first):
            first.copy_(further)
