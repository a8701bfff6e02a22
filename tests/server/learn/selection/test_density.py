from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview_server.learn.selection import typicality, unit_rows


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
    unlike = [rows[row] for row in chosen]  # whole numbers: only equal rows are copies
    while len(expected) < count:
        left = [row for row in range(len(rows)) if row not in chosen and row not in expected]
        others = [row for row in left if rows[row] not in unlike]
        if not others:
            covered, unlike = set(), []
            continue
        allowed = [row for row in others if row not in covered]
        if not allowed:
            covered = set()
            continue
        best = min(allowed, key=lambda row: (float(means[row]), row))
        expected.append(best)
        covered |= {near for _, near in neighbors[best]}
        unlike.append(rows[best])
    found = typicality(brute.tensor(rows), count, num_neighbors=k, chosen=torch.tensor(chosen, dtype=torch.int64))
    assert found.rows.tolist() == expected
    assert found.scores.tolist() == pytest.approx([1 / float(means[row]) for row in expected])


@settings(deadline=None, max_examples=50)
@given(data=st.data(), k=st.integers(1, 30))
def test_no_copy_of_an_image_is_selected_while_an_unlike_one_is_left(brute: Any, data: st.DataObject, k: int) -> None:
    distinct = data.draw(brute.whole_rows(least=1, most=8))
    copies = data.draw(st.lists(st.integers(0, len(distinct) - 1), max_size=40))
    rows = data.draw(st.permutations([*distinct, *(distinct[at] for at in copies)]))
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True, max_size=3))
    taken = {tuple(rows[row]) for row in chosen}
    left = {tuple(row) for row in rows} - taken
    tensor = torch.tensor(chosen, dtype=torch.int64)
    found = typicality(brute.tensor(rows), len(left), num_neighbors=k, chosen=tensor).rows.tolist()
    assert {tuple(rows[row]) for row in found} == left


@pytest.mark.parametrize("k", [1, 2, 20, 24, 100])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_frames_of_a_still_camera_take_one_place(k: int, noise: float) -> None:
    """25 frames that are equal, or nearly so, among 60 other images."""
    generator = torch.Generator().manual_seed(3)
    others, frame = torch.randn(60, 32, generator=generator), torch.randn(1, 32, generator=generator)
    rows = torch.cat([others, frame + noise * torch.randn(25, 32, generator=generator)])
    found = typicality(unit_rows(rows), 61, num_neighbors=k).rows
    assert int((found >= 60).sum()) == 1
    assert int(found[0]) >= 60, "the densest place of all"


def test_second_copies_come_before_third_ones() -> None:
    rows = torch.tensor([[0.0], [0], [0], [9], [9], [9], [50]])
    assert rows[typicality(rows, 7, num_neighbors=1).rows][:, 0].tolist() == [0, 9, 50, 0, 9, 0, 9]


def test_dense_places_come_before_outliers_and_each_place_once() -> None:
    """Two clumps of 5 and two rows far out: the middle of the tighter clump, of the other, then the outliers."""
    clump = torch.tensor([[0.0, 0.0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    rows = torch.cat([clump * 0.1, clump * 0.2 + 10, torch.tensor([[50.0, 0.0], [0.0, 80.0]])])
    assert typicality(rows, 4, num_neighbors=4).rows.tolist() == [0, 5, 10, 11]
    assert typicality(rows, 1, num_neighbors=4, chosen=torch.tensor([2])).rows.tolist() == [5]


def test_equal_rows_and_lone_rows() -> None:
    assert typicality(torch.ones(4, 3), 4, num_neighbors=2).rows.tolist() == [0, 1, 2, 3]
    assert typicality(torch.ones(1, 3), 1).rows.tolist() == [0]
    assert typicality(torch.ones(1, 3), 0, chosen=torch.tensor([0])).rows.tolist() == []


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="num_neighbors must be at least 1, not 0"):
        typicality(torch.eye(4), 1, num_neighbors=0)
    with pytest.raises(ValueError, match="count must be from 0 to 4"):
        typicality(torch.eye(4), 5)
