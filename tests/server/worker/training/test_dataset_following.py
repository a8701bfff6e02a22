"""Decoding beside training that makes no progress is noticed, and a machine that slept is not taken for that."""

from __future__ import annotations

import queue
from typing import Any, cast

import pytest

from manyview_server.worker.training import dataset_following as module
from manyview_server.worker.training.dataset_following import HANGING_S, SECOND_LOOK_S, DatasetFollowing


class Now:
    seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    made = Now()
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def following(now: Now) -> DatasetFollowing:
    """A decoding that starts now and has no result yet."""
    cache = cast(Any, [])
    made = DatasetFollowing(
        cast(Any, None), cache, (), queue.SimpleQueue(), report=lambda _: None, stopped=lambda: False
    )
    made._alive()
    return made


def test_a_chunk_that_takes_too_long_twice_in_a_row_is_a_failure(following: DatasetFollowing, now: Now) -> None:
    now.seconds += HANGING_S
    assert following.next_snapshot(1, 1) is None
    now.seconds += 1
    assert following.next_snapshot(2, 2) is None, "it is looked at again"
    now.seconds += SECOND_LOOK_S + 1
    with pytest.raises(RuntimeError, match="no progress for 600 seconds"):
        following.next_snapshot(3, 3)


def test_a_machine_that_slept_while_a_chunk_was_decoded_fails_nothing(following: DatasetFollowing, now: Now) -> None:
    for step in range(3):
        now.seconds += 10 * HANGING_S
        assert following.next_snapshot(step, step) is None
        now.seconds += 1
        following._alive()
        now.seconds += SECOND_LOOK_S + 1
        assert following.next_snapshot(step, step) is None
