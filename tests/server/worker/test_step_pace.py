"""A job whose steps take longer than planned says so once, with the reason, and says when that has ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from manyview_server.system.core_time import CoreTime
from manyview_server.worker.step_pace import PaceChange, StepPace


def pace(planned_step_s: float = 0.5, *, share_waited: float = 0.0) -> StepPace:
    """A pace whose thread waits for a core for this share of its time."""

    def readings() -> Iterator[CoreTime]:
        for number in range(100):
            yield CoreTime(ran=round(100 * number * (1 - share_waited)), waited=round(100 * number * share_waited))

    found = readings()
    return StepPace(planned_step_s, lambda: next(found))


def test_steps_that_take_three_times_as_long_are_reported_with_the_time_that_is_left() -> None:
    change = pace(share_waited=0.6).see(20, 30.0, steps_left=1_000)
    assert change == PaceChange(
        is_slower=True,
        text="steps take 3.0 times as long as planned: the job needs about 25 min more, not about 8 min. Other work "
        "uses the cores: the job waited for one for 60% of the time. If that is too long, cancel the job: it keeps a "
        "checkpoint that can embed.",
    )


def test_a_thread_that_did_not_wait_for_a_core_does_not_blame_other_work() -> None:
    change = pace(share_waited=0.1).see(20, 30.0, steps_left=1_000)
    assert change is not None
    assert "Other work" not in change.text


@pytest.mark.parametrize(
    ("planned_step_s", "num_steps", "steps_s", "steps_left"),
    [
        pytest.param(0.5, 42, 30.0, 1_000, id="a little slower"),
        pytest.param(0.5, 20, 30.0, 59, id="late by less than a minute"),
        pytest.param(0.5, 10, 29.0, 1_000, id="too few seconds"),
        pytest.param(5.0, 2, 60.0, 1_000, id="too few steps"),
        pytest.param(0.0, 20, 30.0, 1_000, id="no plan"),
    ],
)
def test_no_other_job_is_reported(planned_step_s: float, num_steps: int, steps_s: float, steps_left: int) -> None:
    assert pace(planned_step_s).see(num_steps, steps_s, steps_left) is None


def test_short_times_add_up_to_one_comparison() -> None:
    watched = pace()
    changes = [watched.see(2, 3.0, steps_left=1_000) for _ in range(10)]
    assert [change is not None for change in changes] == [False] * 9 + [True]


def test_it_is_reported_again_once_it_has_become_much_slower_and_once_it_is_over() -> None:
    watched = pace()
    step_s = [1.0, 1.1, 1.4, 1.6, 1.6, 0.7, 0.55, 0.5, 1.0]
    changes = [watched.see(100, 100 * seconds, steps_left=1_000) for seconds in step_s]
    assert [change and change.is_slower for change in changes] == [
        True,
        None,
        None,
        True,
        None,
        None,
        False,
        None,
        True,
    ]
    over = changes[6]
    assert over is not None
    assert over.text == "steps are as fast as planned again: about 9 min is left"
