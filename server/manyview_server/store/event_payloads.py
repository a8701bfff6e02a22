"""The payloads of a job's events, one frozen dataclass for each kind, and their form as JSON in the database.

Every kind is described here and in the contract, and nowhere else on the server. To add one, write its class, add it to
`Payload` and `EventKind`, and extend `front.convert.job_messages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, TypeVar, get_args

from manyview_server.messages.training import Level
from manyview_server.store.job_states import JobState

EventKind = Literal["scalars", "state", "checkpoint", "rollback", "alert", "log", "snapshot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalars:
    """Scalars of one step, by name."""

    kind: ClassVar[EventKind] = "scalars"
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """The job went from one state to another. A new job comes from ""; `reason` is UPPER_SNAKE, or empty."""

    kind: ClassVar[EventKind] = "state"
    from_state: JobState | Literal[""]
    to_state: JobState
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved:
    """A checkpoint is durable. `directory` is the name of its directory, without the path."""

    kind: ClassVar[EventKind] = "checkpoint"
    step: int
    directory: str
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """A new attempt continues after step `to_step`.

    It supersedes the scalars between the event `superseded_after_sequence` and its own, both excluded.
    """

    kind: ClassVar[EventKind] = "rollback"
    to_step: int
    superseded_after_sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """The job's owner should look at something. `reason` is UPPER_SNAKE."""

    kind: ClassVar[EventKind] = "alert"
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A line of the job's log."""

    kind: ClassVar[EventKind] = "log"
    level: Level
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotAdopted:
    """The job trains on the first `num_images` images of its data set from the next step on, `num_added` more than
    before."""

    kind: ClassVar[EventKind] = "snapshot"
    num_images: int
    num_added: int


Payload = Scalars | StateChange | CheckpointSaved | Rollback | Alert | Log | SnapshotAdopted
P = TypeVar("P", bound=Payload)

PAYLOADS: Mapping[str, type[Payload]] = {payload.kind: payload for payload in get_args(Payload)}

# The keys of a state change in the database. The word `from` cannot name a field.
_KEYS = {"from_state": "from", "to_state": "to"}


def to_json(payload: Payload) -> dict[str, Any]:
    """Return the payload as JSON values."""
    if isinstance(payload, Scalars):
        return dict(payload.values)
    return {_KEYS.get(field.name, field.name): getattr(payload, field.name) for field in fields(payload)}


def from_json(payload: type[P], values: Mapping[str, Any]) -> P:
    """Return the payload of this class that `to_json` gave.

    A field that the release which wrote it did not have gets its default.
    """
    if payload is Scalars:
        values = {"values": values}
    keys = {field.name: _KEYS.get(field.name, field.name) for field in fields(payload)}
    found = payload(**{name: values[key] for name, key in keys.items() if key in values})
    assert isinstance(found, payload)
    return found
