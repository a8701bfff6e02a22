from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from manyview_server.learn.selection import Selection, balanced, equal_budgets, proportional_budgets


def lowest(candidates: Tensor, count: int) -> Selection:
    """The first candidates, scored by their rows."""
    return Selection(rows=torch.arange(count), scores=candidates[:count].float())


@settings(deadline=None, max_examples=50)
@given(available=st.lists(st.integers(0, 30), min_size=1, max_size=8), data=st.data())
def test_equal_budgets_differ_only_where_a_class_has_no_more(available: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, sum(available)))
    budgets = equal_budgets(torch.tensor(available), count).tolist()
    assert sum(budgets) == count
    open_ones = [budget for budget, most in zip(budgets, available, strict=True) if budget < most]
    for budget, most in zip(budgets, available, strict=True):
        assert 0 <= budget <= most
        assert budget <= min(open_ones, default=budget) + 1
    assert open_ones == sorted(open_ones, reverse=True), "the first classes get what is over"


@settings(deadline=None, max_examples=50)
@given(available=st.lists(st.integers(0, 30), min_size=1, max_size=8), data=st.data())
def test_proportional_budgets_are_shares_to_within_one(available: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, sum(available)))
    budgets = proportional_budgets(torch.tensor(available), count).tolist()
    assert sum(budgets) == count
    for budget, most in zip(budgets, available, strict=True):
        assert 0 <= budget <= most
        assert abs(budget - count * most / max(1, sum(available))) < 1


def test_budgets_beyond_what_there_is_are_refused() -> None:
    for budgets in (equal_budgets, proportional_budgets):
        with pytest.raises(ValueError, match="the rows with a class, not 6"):
            budgets(torch.tensor([2, 3]), 6)


def test_classes_are_mixed_and_rows_without_a_budget_are_left_out() -> None:
    classes = torch.tensor([1, 0, -1, 1, 1, 0, 2, 1])
    free = torch.ones(8, dtype=torch.bool)
    free[3] = False
    found = balanced(classes, {0: 1, 1: 3, 2: 0}, lowest, free=free)
    assert found.rows.tolist() == [0, 1, 4, 7]
    assert found.scores.tolist() == [0, 1, 4, 7]
    assert len(balanced(classes, {}, lowest, free=free)) == 0


def test_any_beginning_is_balanced_as_the_whole() -> None:
    classes = torch.arange(200) % 2
    rows = balanced(classes, {0: 90, 1: 10}, lowest, free=torch.ones(200, dtype=torch.bool)).rows
    for length in range(101):
        assert abs(int((classes[rows[:length]] == 1).sum()) - length / 10) <= 1


def test_a_class_with_too_few_rows_is_named() -> None:
    with pytest.raises(ValueError, match="class 1 has 2 of the 3 rows that its budget asks for"):
        balanced(torch.tensor([1, 1, 0]), {1: 3}, lowest, free=torch.ones(3, dtype=torch.bool))
