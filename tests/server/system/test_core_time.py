from __future__ import annotations

import pytest

from manyview_server.system import core_time
from manyview_server.system.core_time import CoreTime


def test_the_kernel_counts_the_time_for_which_a_thread_runs() -> None:
    before = CoreTime.now()
    sum(range(2_000_000))
    assert CoreTime.now().ran > before.ran


@pytest.mark.parametrize(("ran", "waited", "share"), [(300, 100, 0.25), (100, 0, 0.0), (0, 0, 0.0), (0, 100, 1.0)])
def test_the_share_of_waits_is_of_the_time_in_which_a_thread_could_run(ran: int, waited: int, share: float) -> None:
    since = CoreTime(ran=1_000, waited=7)
    assert CoreTime(ran=1_000 + ran, waited=7 + waited).share_waited(since) == share


def test_a_kernel_that_does_not_count_shows_no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_time, "SCHEDULER_FILE", core_time.SCHEDULER_FILE / "missing")
    assert CoreTime.now() == CoreTime()
