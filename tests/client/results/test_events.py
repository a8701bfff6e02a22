"""The events of a job: one payload for each kind, which users can match."""

from typing import Any, get_args

import pytest

import manyview
from manyview._results.events import KINDS, Event, Payload, event_from, kind_names
from manyview.v1 import metrics_service_pb2 as pb
from manyview.v1 import types_pb2

MESSAGES = {
    "scalars": ({"scalars": pb.Scalars(values={"loss": 0.5})}, manyview.Scalars(values={"loss": 0.5})),
    "state": (
        {"state_change": pb.StateChange(**{"from": "TRAIN_JOB_STATE_QUEUED"}, to="TRAIN_JOB_STATE_FAILED", reason="A")},
        manyview.StateChange(from_state="QUEUED", to_state="FAILED", reason="A", message=""),
    ),
    "checkpoint": (
        {"checkpoint": pb.CheckpointSaved(name="trainJobs/j/checkpoints/4", num_bytes=9)},
        manyview.CheckpointSaved(name="trainJobs/j/checkpoints/4", num_bytes=9),
    ),
    "rollback": (
        {"rollback": pb.Rollback(to_step=4, superseded_after_sequence=7)},
        manyview.Rollback(to_step=4, superseded_after_sequence=7),
    ),
    "alert": (
        {"alert": pb.Alert(reason="COLLAPSE", message="std 0.01")},
        manyview.Alert(reason="COLLAPSE", message="std 0.01"),
    ),
    "log": (
        {"log": types_pb2.Log(level="LEVEL_WARNING", text="slow")},
        manyview.Log(level="WARNING", text="slow"),
    ),
    "snapshot": (
        {"snapshot": pb.SnapshotAdopted(num_images=50, num_added=10)},
        manyview.SnapshotAdopted(num_images=50, num_added=10),
    ),
}


def event(kind: str) -> Event:
    payload: Any = MESSAGES[kind][0]
    return event_from(pb.MetricsEvent(sequence=3, step=4, kind=f"KIND_{kind.upper()}", **payload))


def test_every_kind_of_the_contract_has_a_payload() -> None:
    assert list(KINDS) == [name.removeprefix("KIND_").lower() for name in dict(pb.MetricsEvent.Kind.items())][1:]
    assert [type(event(kind).payload) for kind in KINDS] == list(get_args(Payload))


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_carries_the_payload_of_its_kind(kind: str) -> None:
    assert (event(kind).kind, event(kind).payload) == (kind, MESSAGES[kind][1])


def test_an_event_matches_by_the_fields_of_its_payload() -> None:
    match event("state"):
        case Event(step=4, payload=manyview.StateChange(to_state="FAILED", reason=reason)):
            assert reason == "A"
        case other:
            pytest.fail(f"{other} does not match")
    match event("scalars").payload:
        case manyview.Scalars(values={"loss": loss}):
            assert loss == 0.5
        case payload:
            pytest.fail(f"{payload} does not match")


def test_the_values_of_an_event_are_found_by_name() -> None:
    assert event("scalars")["loss"] == event("scalars").get("loss") == 0.5
    assert "loss" in event("scalars")
    assert event("scalars").get("rate", 7) == 7
    assert dict(event("state").values) == {"from": "QUEUED", "to": "FAILED", "reason": "A", "message": ""}
    assert dict(event("log").values) == {"level": "WARNING", "text": "slow"}
    with pytest.raises(KeyError, match="a rollback event has no 'loss'; it has to_step, superseded_after_sequence"):
        event("rollback")["loss"]


def test_an_event_of_no_known_kind_has_no_payload() -> None:
    unknown = event_from(pb.MetricsEvent(sequence=1))
    assert (unknown.payload, dict(unknown.values)) == (None, {})


def test_an_unknown_kind_is_refused_by_name() -> None:
    assert kind_names(["alert"]) == ["KIND_ALERT"]
    with pytest.raises(ValueError, match="kinds must be one of scalars, state"):
        kind_names(["alarm"])  # type: ignore[list-item]
