"""The payloads of events: their JSON in the database is a format that older stores have."""

import json
from typing import get_args

import pytest

from manyview.v1 import metrics_service_pb2 as pb
from manyview_server.store.event_payloads import (
    PAYLOADS,
    Alert,
    CheckpointSaved,
    EventKind,
    Log,
    Payload,
    Rollback,
    Scalars,
    SnapshotAdopted,
    StateChange,
    from_json,
    to_json,
)

STORED: list[tuple[Payload, str]] = [
    (Scalars(values={"loss": 0.5, "rate": 1.0}), '{"loss": 0.5, "rate": 1.0}'),
    (
        StateChange(from_state="", to_state="QUEUED"),
        '{"from": "", "to": "QUEUED", "reason": "", "message": ""}',
    ),
    (
        CheckpointSaved(step=10, directory="000000010-1", num_bytes=7),
        '{"step": 10, "directory": "000000010-1", "num_bytes": 7}',
    ),
    (Rollback(to_step=4, superseded_after_sequence=7), '{"to_step": 4, "superseded_after_sequence": 7}'),
    (Alert(reason="COLLAPSE", message="std 0.01"), '{"reason": "COLLAPSE", "message": "std 0.01"}'),
    (Log(level="info", text="x"), '{"level": "info", "text": "x"}'),
    (SnapshotAdopted(num_images=50, num_added=10), '{"num_images": 50, "num_added": 10}'),
]


@pytest.mark.parametrize(("payload", "text"), STORED, ids=[payload.kind for payload, _ in STORED])
def test_the_json_of_a_payload_is_what_older_stores_hold(payload: Payload, text: str) -> None:
    assert json.dumps(to_json(payload)) == text
    assert from_json(type(payload), json.loads(text)) == payload


def test_a_field_that_an_older_release_did_not_write_has_its_default() -> None:
    assert from_json(StateChange, {"from": "", "to": "QUEUED"}) == StateChange(from_state="", to_state="QUEUED")
    with pytest.raises(TypeError, match="num_bytes"):
        from_json(CheckpointSaved, {"step": 1, "directory": "000000001-1"})


def test_every_kind_of_the_contract_has_one_payload() -> None:
    contract = [name.removeprefix("KIND_").lower() for name in dict(pb.MetricsEvent.Kind.items())][1:]
    assert list(get_args(EventKind)) == list(PAYLOADS) == contract
    assert [type(payload) for payload, _ in STORED] == list(PAYLOADS.values())
