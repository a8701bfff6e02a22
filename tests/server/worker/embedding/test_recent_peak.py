from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manyview_server.worker.embedding.recent_peak import RecentPeak


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 3))), st.floats(0, 5))
def test_it_remembers_a_value_for_one_to_two_windows(notes: list[tuple[int, float]], wait_s: float) -> None:
    peak, at, noted = RecentPeak(1.0), 0.0, []
    for value, passed_s in notes:
        at += passed_s
        peak.note(value, at)
        noted.append((value, at))
    at += wait_s
    certain = [value for value, when in noted if at - when < 1.0]
    possible = [value for value, when in noted if at - when < 2.0]
    assert max([0, *certain]) <= peak.value(at) <= max([0, *possible])
