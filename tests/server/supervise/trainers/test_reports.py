"""A step that takes too long is noticed, and no other step is."""

from __future__ import annotations

import pytest

from manyview_server.configuration.shorthand import merged
from manyview_server.supervise.trainers.reports import Stalled, StepWatch


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_step_beyond_the_patience_is_a_stall() -> None:
    clock = Clock()
    watch = StepWatch(10.0, clock)
    watch.heartbeat("training", 1)
    clock.now = 10.0
    watch.heartbeat("training", 1)
    clock.now = 10.1
    with pytest.raises(Stalled, match="step 2 did not end within 10 seconds"):
        watch.heartbeat("training", 1)


def test_long_steps_are_given_twenty_times_the_longest() -> None:
    clock = Clock()
    watch = StepWatch(10.0, clock)
    for step in range(3):
        watch.heartbeat("training", step)
        clock.now += 8.0
    watch.heartbeat("training", 3)
    clock.now += 160.0
    watch.heartbeat("training", 3)
    clock.now += 1.0
    with pytest.raises(Stalled):
        watch.heartbeat("training", 3)


def test_several_steps_between_heartbeats_share_their_time() -> None:
    clock = Clock()
    watch = StepWatch(1.0, clock)
    watch.heartbeat("training", 0)
    clock.now = 2.0
    watch.heartbeat("training", 20)  # 0.1 s each
    clock.now = 4.1
    with pytest.raises(Stalled):
        watch.heartbeat("training", 20)


def test_other_stages_may_take_as_long_as_they_do_while_there_is_progress() -> None:
    clock = Clock()
    watch = StepWatch(1.0, clock)
    for done in range(5):
        watch.heartbeat("decoding", 0, done)
        clock.now += 0.9
    watch.heartbeat("evaluating", 0, 4)
    clock.now += 1.1
    with pytest.raises(Stalled, match="evaluating made no progress within 1 seconds"):
        watch.heartbeat("evaluating", 0, 4)


def test_choices_are_merged_into_nested_settings_which_stay_as_they_are() -> None:
    settings = {"stem": "auto", "optimizer": {"learning_rate": None, "momentum": 0.9}}
    chosen = {"stem": "small", "optimizer": {"learning_rate": 0.06}}
    assert merged(settings, chosen) == {"stem": "small", "optimizer": {"learning_rate": 0.06, "momentum": 0.9}}
    assert settings["optimizer"] == {"learning_rate": None, "momentum": 0.9}


def test_time_in_which_the_server_was_busy_with_earlier_messages_is_not_counted() -> None:
    clock = Clock()
    watch = StepWatch(10.0, clock)
    watch.heartbeat("training", 1)
    with watch.busy():  # a disk that takes nothing, say
        clock.now += 1000.0
    watch.heartbeat("training", 1)
    clock.now += 10.1
    with pytest.raises(Stalled):
        watch.heartbeat("training", 1)
