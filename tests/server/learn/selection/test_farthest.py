from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview_server.learn.selection import coreset, farthest, minimum_distance, unit_rows

WHOLE = st.integers(1, 24).flatmap(
    lambda n: st.lists(st.lists(st.integers(-4, 4), min_size=3, max_size=3), min_size=n, max_size=n)
)


@settings(deadline=None, max_examples=50)
@given(rows=WHOLE, seed=st.integers(0, 2**63 - 1), at_once=st.sampled_from([1, 3, 64]), data=st.data())
def test_each_row_is_the_farthest_from_those_before_and_of_equal_ones_the_first(
    brute: Any, rows: list[list[int]], seed: int, at_once: int, data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True, max_size=len(rows)))
    count = data.draw(st.integers(0, len(rows) - len(chosen)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(farthest, "ROUND_ROWS", at_once)
        patch.setattr(farthest, "CHUNK_DISTANCES", 7 * at_once)
        patch.setattr(farthest, "CHUNK_FLOATS", 12)
        found = coreset(brute.tensor(rows), count, seed=seed, chosen=torch.tensor(chosen, dtype=torch.int64))
    selected = list(chosen)
    for row, score in zip(found.rows.tolist(), found.scores.tolist(), strict=True):
        far, first = brute.farthest(rows, selected)
        assert score == pytest.approx(far)
        assert row == first or not selected, "the first of all is left to the seed"
        assert row not in selected
        selected.append(row)
    assert len(found) == count


@settings(deadline=None, max_examples=50)
@given(rows=WHOLE, seed=st.integers(0, 100), apart=st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 100.0]))
def test_rows_are_kept_apart_until_none_is_left_that_is_farther(
    brute: Any, rows: list[list[int]], seed: int, apart: float
) -> None:
    found = minimum_distance(brute.tensor(rows), apart, seed=seed).rows.tolist()
    pairs = itertools.combinations(found, 2)
    assert all(brute.distance(rows[one], rows[other]) > apart for one, other in pairs)
    for row in range(len(rows)):
        assert min(brute.distance(rows[row], rows[other]) for other in found) <= apart
    assert found == coreset(brute.tensor(rows), len(found), seed=seed).rows.tolist(), "the same order"


def test_rounds_give_what_one_at_a_time_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = unit_rows(torch.randn(2000, 16, generator=torch.Generator().manual_seed(2)))
    rows[::7] = rows[0]
    in_rounds = coreset(rows, 600, seed=0)
    monkeypatch.setattr(farthest, "ROUND_ROWS", 1)
    one_by_one = coreset(rows, 600, seed=0)
    assert torch.equal(in_rounds.rows, one_by_one.rows)
    assert torch.equal(in_rounds.scores, one_by_one.scores)
    selected = rows[in_rounds.rows].double()
    exact = torch.cdist(selected, selected, compute_mode="donot_use_mm_for_euclid_dist")
    expected = torch.stack([exact[i, :i].min() for i in range(1, 600)])
    torch.testing.assert_close(in_rounds.scores[1:].double(), expected, rtol=1e-5, atol=1e-6)


def test_no_row_is_farther_than_twice_what_any_choice_could_reach() -> None:
    rows = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    found = coreset(rows, 3, seed=1).rows
    reach = torch.cdist(rows, rows)

    def radius(rows: Any) -> float:
        return float(reach[:, list(rows)].min(1).values.max())

    best = min(radius(choice) for choice in itertools.combinations(range(12), 3))
    assert best <= radius(found.tolist()) <= 2 * best


def test_what_is_chosen_already_is_kept_away_from() -> None:
    rows = torch.tensor([[0.0, 0.0], [0.1, 0.0], [5.0, 0.0], [9.0, 0.0]])
    assert coreset(rows, 2, seed=0, chosen=torch.tensor([0])).rows.tolist() == [3, 2]
    assert coreset(rows, 1, seed=0, chosen=torch.tensor([3])).rows.tolist() == [0]
    assert minimum_distance(rows, 4.5, seed=0, chosen=torch.tensor([0, 3])).rows.tolist() == []
    assert minimum_distance(rows, 3.5, seed=0, chosen=torch.tensor([0, 3])).rows.tolist() == [2]
    assert minimum_distance(rows, 0.0, seed=0, count=1, chosen=torch.tensor([0])).rows.tolist() == [3]


def test_more_of_the_same_goes_on_where_less_stopped() -> None:
    rows = unit_rows(torch.randn(300, 8, generator=torch.Generator().manual_seed(3)))
    whole = coreset(rows, 40, seed=5)
    assert torch.equal(coreset(rows, 15, seed=5).rows, whole.rows[:15])
    assert torch.equal(coreset(rows, 25, seed=9, chosen=whole.rows[:15]).rows, whole.rows[15:])
    assert whole.scores[0] == math.inf
    assert torch.all(whole.scores[1:-1] >= whole.scores[2:])
    assert {int(coreset(rows, 1, seed=seed).rows) for seed in range(9)} != {int(whole.rows[0])}


@pytest.mark.parametrize("count", [-1, 4])
def test_a_count_that_there_is_not_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"count must be from 0 to 3, the rows that are not chosen yet, not {count}"):
        coreset(torch.eye(4), count, seed=0, chosen=torch.tensor([2]))
    with pytest.raises(ValueError, match="count must be from 0 to 3"):
        minimum_distance(torch.eye(4), 1.0, seed=0, count=count, chosen=torch.tensor([2]))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rows must be \(N, D\) of float32 or float64"):
        coreset(torch.zeros(3), 1, seed=0)
    with pytest.raises(ValueError, match=r"rows must be \(N, D\) of float32 or float64"):
        minimum_distance(torch.zeros(3, 2, dtype=torch.int64), 1.0, seed=0)
    with pytest.raises(ValueError, match="distance must be at least 0, not -1"):
        minimum_distance(torch.eye(4), -1.0, seed=0)
    with pytest.raises(ValueError, match="distance must be at least 0, not nan"):
        minimum_distance(torch.eye(4), math.nan, seed=0)
    with pytest.raises(ValueError, match="chosen rows must be from 0 to 3, not 4 to 4"):
        coreset(torch.eye(4), 1, seed=0, chosen=torch.tensor([4]))
