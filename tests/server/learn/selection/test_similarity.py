from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview_server.learn.selection import similarity


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_the_nearest_to_any_query_come_first(brute: Any, data: st.DataObject) -> None:
    rows, queries = data.draw(brute.whole_rows()), data.draw(brute.whole_rows(most=4))
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True, max_size=len(rows)))
    count = data.draw(st.integers(0, len(rows) - len(chosen)))
    found = similarity(brute.tensor(rows), brute.tensor(queries), count, chosen=torch.tensor(chosen, dtype=torch.int64))
    expected = sorted(
        (min(brute.distance(row, query) for query in queries), index)
        for index, row in enumerate(rows)
        if index not in chosen
    )[:count]
    assert found.rows.tolist() == [index for _, index in expected]
    assert found.scores.tolist() == pytest.approx([distance for distance, _ in expected])


def test_what_does_not_fit_is_refused() -> None:
    for queries in (torch.empty(0, 4), torch.zeros(1, 3)):
        with pytest.raises(ValueError, match=r"queries must be \(Q, 4\) with at least one query"):
            similarity(torch.eye(4), queries, 1)
    with pytest.raises(ValueError, match="count must be from 0 to 4"):
        similarity(torch.eye(4), torch.eye(4), 5)
