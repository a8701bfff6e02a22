"""When to try again, and when to give up."""

import logging

import pytest

import manyview
from manyview._transport.backoff import Backoff


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds

    def __call__(self) -> float:
        return self.now_s


def fail_forever(backoff: Backoff) -> None:
    while True:
        backoff.wait(manyview.Unavailable("down"))


def test_delays_stay_below_a_growing_bound() -> None:
    clock = Clock()
    backoff = Backoff(sleep=clock.sleep, clock=clock)
    for _ in range(50):
        backoff.wait(manyview.Unavailable("down"))
    assert all(delay <= min(5.0, 0.1 * 2 ** (n + 1)) for n, delay in enumerate(clock.slept))
    assert max(clock.slept[10:]) > 1.0


def test_the_servers_wish_is_waited_for() -> None:
    clock = Clock()
    Backoff(sleep=clock.sleep, clock=clock).wait(manyview.Unavailable("draining", retry_after_s=7.0))
    assert 7.0 <= clock.slept[0] <= 7.2


def test_attempts_are_counted_until_one_succeeds() -> None:
    clock = Clock()
    backoff = Backoff(max_attempts=2, sleep=clock.sleep, clock=clock)
    backoff.wait(manyview.Unavailable("first"))
    backoff.succeeded()
    backoff.wait(manyview.Unavailable("first again"))
    with pytest.raises(manyview.Unavailable, match="second"):
        backoff.wait(manyview.Unavailable("second"))


def test_continuous_failure_is_given_up_after_its_time() -> None:
    clock = Clock()
    backoff = Backoff(give_up_after_s=60, sleep=clock.sleep, clock=clock)
    with pytest.raises(manyview.Unavailable):
        fail_forever(backoff)
    assert 50 < clock.now_s <= 60


def test_failures_without_end_never_overflow() -> None:
    clock = Clock()
    backoff = Backoff(give_up_after_s=86_400, sleep=clock.sleep, clock=clock)
    with pytest.raises(manyview.Unavailable):
        fail_forever(backoff)
    assert len(clock.slept) > 10_000


def test_the_time_in_which_the_process_was_suspended_is_no_failure() -> None:
    clock = Clock()
    backoff = Backoff(give_up_after_s=300, longest_attempt_s=60, sleep=clock.sleep, clock=clock)
    backoff.wait(manyview.Unavailable("before the lid was closed"))
    clock.now_s += 36_000
    backoff.wait(manyview.Unavailable("after it was opened"))
    with pytest.raises(manyview.Unavailable):
        fail_forever(backoff)
    assert 36_200 < clock.now_s <= 36_300 + 5


def test_a_wait_that_would_outlast_the_deadline_is_not_begun() -> None:
    clock = Clock()
    with pytest.raises(manyview.Unavailable):
        Backoff(sleep=clock.sleep, clock=clock).wait(manyview.Unavailable("busy", retry_after_s=30), at_most_s=5)
    assert clock.slept == []


def test_a_log_tells_of_each_wait(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    backoff = Backoff(max_attempts=3, sleep=clock.sleep, clock=clock)
    with caplog.at_level(logging.INFO, logger="manyview"), pytest.raises(manyview.Unavailable):
        fail_forever(backoff)
    assert [record.getMessage() for record in caplog.records] == [
        f"failure {n} in a row, next attempt in {delay:.1f} s: down [UNAVAILABLE]"
        for n, delay in enumerate(clock.slept, start=1)
    ]
