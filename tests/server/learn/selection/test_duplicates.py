from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview_server.learn.selection import duplicates, near_duplicates, unit_rows


@settings(deadline=None, max_examples=50)
@given(
    data=st.data(), apart=st.sampled_from([0.0, 0.9, 1.0, 2**0.5 + 1e-6, 2.0, 5.0]), block=st.sampled_from([1, 3, 9])
)
def test_groups_are_the_connected_components(brute: Any, data: st.DataObject, apart: float, block: int) -> None:
    rows = data.draw(brute.whole_rows())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "BLOCK_ROWS", block)
        found = near_duplicates(brute.tensor(rows), apart).tolist()
    group = list(range(len(rows)))
    changed = True
    while changed:  # every row takes the lowest number that it can reach
        changed = False
        for one in range(len(rows)):
            for other in range(len(rows)):
                if brute.distance(rows[one], rows[other]) <= apart and group[other] < group[one]:
                    group[one], changed = group[other], True
    assert found == group


def test_a_chain_is_one_group_however_long_and_in_whatever_order() -> None:
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(3000.0)[order, None]
    assert near_duplicates(rows, 1.0).unique().tolist() == [0]
    assert near_duplicates(rows, 0.5).tolist() == list(range(3000))


def test_equal_rows_are_found_at_distance_zero_and_nearly_equal_ones_are_not() -> None:
    """By product equal rows are about 3e-4 apart, and so are some that are not equal."""
    rows = unit_rows(torch.randn(200, 300, generator=torch.Generator().manual_seed(1)))
    near = rows[:100] + 2e-6
    found = near_duplicates(torch.cat([rows, rows[100:], near]), 0.0).tolist()
    assert found == [*range(200), *range(100, 200), *range(300, 400)]
    assert near_duplicates(torch.cat([rows, near]), 1e-3).tolist() == [*range(200), *range(100)]


def test_all_rows_equal_is_one_group_in_bounded_time() -> None:
    assert near_duplicates(torch.ones(5000, 64), 0.0).unique().tolist() == [0]


def test_a_distance_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="max_distance must be at least 0, not -1"):
        near_duplicates(torch.eye(3), -1.0)
