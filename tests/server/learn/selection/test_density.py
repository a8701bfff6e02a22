from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview_server.learn.selection import typicality


@settings(deadline=None, max_examples=50)
@given(data=st.data(), k=st.integers(1, 30))
def test_as_a_loop_over_everything_would_choose(brute: Any, data: st.DataObject, k: int) -> None:
    rows = data.draw(brute.whole_rows(least=2))
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True, max_size=len(rows)))
    count = data.draw(st.integers(0, len(rows) - len(chosen)))
    neighbors = [brute.neighbors(rows, row, k) for row in range(len(rows))]
    # The mean in float32, as it is computed: it decides which typicalities are equal.
    means = [torch.tensor([d for d, _ in near], dtype=torch.float32).mean().clamp_min(1e-6) for near in neighbors]
    expected: list[int] = []
    covered = {near for row in chosen for _, near in neighbors[row]}
    while len(expected) < count:
        left = [row for row in range(len(rows)) if row not in chosen and row not in expected]
        allowed = [row for row in left if row not in covered]
        if not allowed:
            covered = set()
            continue
        best = min(allowed, key=lambda row: (float(means[row]), row))
        expected.append(best)
        covered |= {near for _, near in neighbors[best]}
    found = typicality(brute.tensor(rows), count, num_neighbors=k, chosen=torch.tensor(chosen, dtype=torch.int64))
    assert found.rows.tolist() == expected
    assert found.scores.tolist() == pytest.approx([1 / float(means[row]) for row in expected])


def test_dense_places_come_before_outliers_and_each_place_once() -> None:
    """Two clumps of 5 and two rows far out: the middle of the tighter clump, of the other, then the outliers."""
    clump = torch.tensor([[0.0, 0.0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    rows = torch.cat([clump * 0.1, clump * 0.2 + 10, torch.tensor([[50.0, 0.0], [0.0, 80.0]])])
    assert typicality(rows, 4, num_neighbors=4).rows.tolist() == [0, 5, 10, 11]
    assert typicality(rows, 1, num_neighbors=4, chosen=torch.tensor([2])).rows.tolist() == [5]


def test_equal_rows_and_lone_rows() -> None:
    assert typicality(torch.ones(4, 3), 4, num_neighbors=2).rows.tolist() == [0, 3, 1, 2]
    assert typicality(torch.ones(1, 3), 1).rows.tolist() == [0]
    assert typicality(torch.ones(1, 3), 0, chosen=torch.tensor([0])).rows.tolist() == []


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="num_neighbors must be at least 1, not 0"):
        typicality(torch.eye(4), 1, num_neighbors=0)
    with pytest.raises(ValueError, match="count must be from 0 to 4"):
        typicality(torch.eye(4), 5)
