from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview_server.learn.selection import distances, nearest, unit_rows


@settings(deadline=None, max_examples=50)
@given(data=st.data(), spare=st.sampled_from([0, 2, 16]), chunk=st.sampled_from([1, 30, 16_000_000]))
def test_the_nearest_by_distance_and_then_by_index(brute: Any, data: st.DataObject, spare: int, chunk: int) -> None:
    rows = data.draw(brute.whole_rows(least=2))
    k = data.draw(st.integers(1, len(rows) - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "SPARE_CANDIDATES", spare)
        patch.setattr(distances, "CHUNK_DISTANCES", chunk)
        whole = brute.tensor(rows)
        found, indices = nearest(whole, whole, k, query_rows=torch.arange(len(rows)))
        foreign, of_foreign = nearest(whole + 0.5, whole, k)
    for row in range(len(rows)):
        expected = brute.neighbors(rows, row, k)
        assert indices[row].tolist() == [index for _, index in expected]
        assert found[row].tolist() == pytest.approx([distance for distance, _ in expected])
        query = [value + 0.5 for value in rows[row]]
        by_distance = sorted((brute.distance(query, other), index) for index, other in enumerate(rows))[:k]
        assert of_foreign[row].tolist() == [index for _, index in by_distance]
        assert foreign[row].tolist() == pytest.approx([distance for distance, _ in by_distance])


def test_many_rows_in_many_chunks_as_one_exact_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "CHUNK_DISTANCES", 7000)
    rows = unit_rows(torch.randn(500, 32, generator=torch.Generator().manual_seed(1)))
    exact = torch.cdist(rows.double(), rows.double())
    exact.fill_diagonal_(torch.inf)
    expected = exact.sort(dim=1, stable=True)
    found, indices = nearest(rows, rows, 20, query_rows=torch.arange(500))
    torch.testing.assert_close(found.double(), expected.values[:, :20], rtol=1e-5, atol=1e-6)
    assert (indices == expected.indices[:, :20]).float().mean() > 0.999, "except where float32 cannot separate them"


def test_equal_rows_are_at_distance_zero_and_in_their_order() -> None:
    """By product alone they would be about 3e-4 apart, in an order that depends on their places."""
    row = torch.randn(1, 300, generator=torch.Generator().manual_seed(2))
    found, indices = nearest(row, row.repeat(101, 1), 50)
    assert found.tolist() == [[0.0] * 50]
    assert indices.tolist() == [list(range(50))]


def test_unit_rows_are_as_far_apart_as_their_angle_says() -> None:
    rows = unit_rows(torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0], [0.0, 0.0]]))
    assert distances.between(rows[:1], rows[1:3]).tolist() == [[pytest.approx(2**0.5), 2.0]]
    assert rows[3].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("k", "own"), [(0, None), (5, None), (4, torch.arange(4))])
def test_more_neighbors_than_there_are_is_refused(k: int, own: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match=f"k must be from 1 to {4 - (own is not None)}, not {k}"):
        nearest(torch.eye(4), torch.eye(4), k, query_rows=own)


def test_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="queries must have as many features as rows, 4, not 3"):
        nearest(torch.zeros(2, 3), torch.eye(4), 1)
