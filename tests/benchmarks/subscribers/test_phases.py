from __future__ import annotations

import numpy as np
from benchmarks.subscribers.phases import latencies_ms


def test_each_event_of_a_message_is_as_late_as_its_own_commit_says() -> None:
    rows = np.array([[1, 3, 10.5], [4, 4, 11.0]])  # events 1 to 3, then event 4
    commits = np.array([2, 3, 4])  # events 1 and 2 were committed together
    late = latencies_ms(rows, commits, np.array([10.0, 10.25, 10.75]))
    assert late.tolist() == [500.0, 500.0, 250.0, 250.0]
