from __future__ import annotations

import pytest

from manyview_server.store.job_states import NEXT_STATES, TERMINAL_STATES, JobState


@pytest.mark.parametrize("terminal", sorted(TERMINAL_STATES))
def test_nothing_leads_out_of_a_terminal_state(terminal: JobState) -> None:
    assert NEXT_STATES[terminal] == frozenset()


@pytest.mark.parametrize("state", sorted(NEXT_STATES.keys() - TERMINAL_STATES))
def test_every_other_state_leads_to_an_end_and_can_be_cancelled(state: JobState) -> None:
    reached, ahead = set(), {state}
    while ahead:
        reached |= ahead
        ahead = {following for one in ahead for following in NEXT_STATES[one]} - reached
    assert reached >= TERMINAL_STATES
    assert NEXT_STATES[state] & {"CANCELLING", "CANCELLED"}


def test_the_graph_leads_to_known_states_only() -> None:
    assert {to for following in NEXT_STATES.values() for to in following} <= NEXT_STATES.keys()
