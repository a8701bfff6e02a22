"""Euclidean distances between rows, exact where an order depends on them, within bounded memory.

Shapes: N rows, Q queries, D features, k neighbors, m candidates.

Matrix products find candidates, several times faster than differences. Distances that are compared with each other are
then computed from differences: these give equal rows equal distances, whatever their place, so that ties are exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manyview_server.learn import normalize
from manyview_server.learn.selection.arguments import check_rows

SMALLEST_LENGTH = 1e-12
"""Shorter rows are not scaled to length 1."""
CHUNK_DISTANCES = 16_000_000
"""Number of distances held at a time (64 MB in float32)."""
CHUNK_FLOATS = 4_000_000
"""Number of values of rows that are subtracted from each other at a time (16 MB in float32)."""
SPARE_CANDIDATES = 16
"""Candidates considered in addition to the k nearest by product. The order beyond them is rarely in doubt."""
PRODUCT_ERROR = 1e-5
"""Largest error of a squared distance by product, as a factor of the sum of both rows' squared lengths (measured:
1e-6)."""


def unit_rows(rows: Tensor) -> Tensor:
    """Scale rows (N, D) to length 1. Distances between them are sqrt(2 - 2 cosine), from 0 to 2."""
    check_rows(rows)
    return normalize.unit_rows(rows, eps=SMALLEST_LENGTH)


def between(rows: Tensor, others: Tensor) -> Tensor:
    """Return (N, M) distances, each computed only from the differences of its two rows."""
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")


def pairwise(one: Tensor, other: Tensor) -> Tensor:
    """Return (...) distances between the rows (..., D) of `one` and `other`, each computed only from its two rows."""
    return (one - other).square().sum(-1).sqrt()


def nearest(queries: Tensor, rows: Tensor, k: int, *, query_rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Find the k nearest rows of each query: (Q, k) ascending distances and (Q, k) indices; ties by index.

    Args:
        queries: (Q, D).
        rows: (N, D).
        k: from 1 to N, or to N - 1 if the queries are rows themselves.
        query_rows: (Q,) int64: query i is row `query_rows[i]`, which is not its own neighbor. None if queries are no
            rows.

    Raises:
        ValueError: shapes that do not fit, or k out of range.
    """
    check_rows(queries, "queries")
    check_rows(rows)
    most = len(rows) - (query_rows is not None)
    if queries.shape[1] != rows.shape[1]:
        raise ValueError(f"queries must have as many features as rows, {rows.shape[1]}, not {queries.shape[1]}")
    if not 1 <= k <= most:
        raise ValueError(f"k must be from 1 to {most}, not {k}")
    lengths = rows.square().sum(1)  # (N,)
    distances = queries.new_empty(len(queries), k)
    indices = torch.empty(len(queries), k, dtype=torch.int64, device=rows.device)
    size = max(1, CHUNK_DISTANCES // len(rows))
    for start in range(0, len(queries), size):
        part = slice(start, start + size)
        own = None if query_rows is None else query_rows[part]
        distances[part], indices[part] = _nearest_of_chunk(queries[part], rows, lengths, k, own)
    return distances, indices


def _nearest_of_chunk(
    queries: Tensor, rows: Tensor, lengths: Tensor, k: int, own: Tensor | None
) -> tuple[Tensor, Tensor]:
    products = torch.addmm(
        lengths, queries, rows.T, alpha=-2
    )  # (Q, N): squared distances minus the squared length of the query
    if own is not None:
        products[torch.arange(len(own), device=rows.device), own] = torch.inf
    m = min(k + SPARE_CANDIDATES, len(rows))
    bounds, candidates = products.topk(m, dim=1, largest=False)
    candidates = candidates.sort(dim=1).values
    exact = torch.cat([between(q[None], rows[c]) for q, c in zip(queries, candidates, strict=True)])  # (Q, m)
    if own is not None:
        exact[candidates == own[:, None]] = torch.inf
    found, order = exact.sort(dim=1, stable=True)
    found, chosen = found[:, :k].clone(), candidates.gather(1, order[:, :k])
    if m == len(rows):
        return found, chosen
    own_lengths = queries.square().sum(1)
    error = PRODUCT_ERROR * (own_lengths + lengths.max())
    in_doubt = found[:, -1].square() >= bounds[:, -1] + own_lengths - error
    for query in in_doubt.nonzero()[:, 0].tolist():
        whole = between(queries[query : query + 1], rows)[0]
        if own is not None:
            whole[own[query]] = torch.inf
        ordered, order = whole.sort(stable=True)
        found[query], chosen[query] = ordered[:k], order[:k]
    return found, chosen
