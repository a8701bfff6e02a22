from __future__ import annotations

from typing import Any

import pytest
from benchmarks.subscribers.report import changes


def window(kind: str, steps: float, trainer_s: float) -> dict[str, Any]:
    return {"kind": kind, "began": 0.0, "ended": 10.0, "steps": steps, "trainer_s": trainer_s}


def test_each_window_is_compared_with_those_around_it_in_which_nobody_listened() -> None:
    windows = [
        window("nobody", 100, 10.0),
        window("live", 99, 10.89),
        window("nobody", 120, 12.0),
        window("replay", 55, 5.5),
        window("nobody", 100, 10.0),
    ]
    rate, cost = changes(windows, "live")
    assert rate == pytest.approx(99 / 110 - 1)
    assert cost == pytest.approx(0.1)
    rate, cost = changes(windows, "replay")
    assert (rate, cost) == pytest.approx((-0.5, 0.0))
