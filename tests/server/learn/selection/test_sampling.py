from __future__ import annotations

import pytest
import torch

from manyview_server.learn.selection import random


def test_every_row_is_as_likely_as_any_other() -> None:
    counts = torch.zeros(10)
    for seed in range(2000):
        counts[random(10, 3, seed=seed).rows] += 1
    assert counts.min() > 520
    assert counts.max() < 680  # 600 expected, standard deviation 20


def test_the_same_seed_gives_the_same_and_fewer_are_its_beginning() -> None:
    whole = random(1000, 100, seed=7)
    assert torch.equal(random(1000, 100, seed=7).rows, whole.rows)
    assert torch.equal(random(1000, 30, seed=7).rows, whole.rows[:30])
    assert len(set(whole.rows.tolist())) == 100
    assert not torch.equal(random(1000, 100, seed=8).rows, whole.rows)
    assert whole.scores.isnan().all()


def test_what_is_chosen_already_is_not_chosen_again() -> None:
    found = random(6, 4, seed=0, chosen=torch.tensor([1, 5])).rows.tolist()
    assert sorted(found) == [0, 2, 3, 4]
    with pytest.raises(ValueError, match="count must be from 0 to 4, the rows that are not chosen yet, not 5"):
        random(6, 5, seed=0, chosen=torch.tensor([1, 5]))
