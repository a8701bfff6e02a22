"""Similarity: the rows that are nearest to given queries.

Shapes: N rows, Q queries, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manyview_server.learn.selection.arguments import check_count, check_rows, free_rows
from manyview_server.learn.selection.distances import CHUNK_DISTANCES, between
from manyview_server.learn.selection.selection import Selection


def similarity(rows: Tensor, queries: Tensor, count: int, *, chosen: Tensor | None = None) -> Selection:
    """Select the rows that are nearest to any of the queries. Time: N * Q * D.

    Args:
        rows: (N, D).
        queries: (Q, D), at least one.
        count: at most the number of rows that are not chosen.
        chosen: (c,) int64 rows that are selected already; they are not selected again.

    Returns:
        The scores are distances to the nearest query, ascending; ties by index.

    Raises:
        ValueError: no queries, shapes that do not fit, `count` is too large, or a `chosen` row does not exist.
    """
    check_rows(rows)
    check_rows(queries, "queries")
    if len(queries) == 0 or queries.shape[1] != rows.shape[1]:
        raise ValueError(f"queries must be (Q, {rows.shape[1]}) with at least one query, not {tuple(queries.shape)}")
    free = free_rows(len(rows), chosen)
    check_count(count, free)
    size = max(1, CHUNK_DISTANCES // len(queries))
    parts = [between(chunk, queries).min(dim=1).values for chunk in torch.split(rows, size)]
    distances = torch.cat(parts) if parts else rows.new_empty(0)
    candidates = free.nonzero()[:, 0].to(rows.device)
    order = distances[candidates].argsort(stable=True)[:count]
    return Selection(rows=candidates[order], scores=distances[candidates[order]])
