"""The event log of a job, replayed and followed live without gaps."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, cast, get_args

from manyview import _convert
from manyview._arguments import one_of, some
from manyview._progress.words import number_of
from manyview._transport.resume import replies
from manyview._transport.rpcs import Rpcs
from manyview._transport.stream import Stream
from manyview._types.words import EventKind, JobState, LogLevel
from manyview.v1 import metrics_service_pb2 as pb


@dataclass(frozen=True, kw_only=True)
class Scalars:
    """Scalars that were logged after a step, by name: loss, learning_rate, representation_std, knn_top1, …"""

    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class StateChange:
    """The job went from one state to another. `reason` and `message` say why, or are empty."""

    from_state: JobState
    to_state: JobState
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved:
    """A checkpoint is durable. `name` is its resource name."""

    name: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """A new attempt continues after step `to_step`. It supersedes the scalars that the log holds after the event
    `superseded_after_sequence` and before this one."""

    to_step: int
    superseded_after_sequence: int


@dataclass(frozen=True, kw_only=True)
class Alert:
    """The owner of the job should look at something. `reason` is UPPER_SNAKE, such as COLLAPSE."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Log:
    """A line of the job's log. `level` is "INFO", "WARNING" or "ERROR"."""

    level: LogLevel
    text: str


@dataclass(frozen=True, kw_only=True)
class SnapshotAdopted:
    """A job that follows its data set trains on its first `num_images` images from the next step on, `num_added` more
    than before."""

    num_images: int
    num_added: int


Payload = Scalars | StateChange | CheckpointSaved | Rollback | Alert | Log | SnapshotAdopted
KINDS: tuple[EventKind, ...] = get_args(EventKind)

# The scalars that the text of an event shows, in their order.
_SHOWN = ("loss", "representation_std", "knn_top1", "knn_top1_raw_pixels", "knn_top1_untrained", "linear_top1")
# The keys of `Event.values` that differ from the names of a payload's fields.
_KEYS = {"from_state": "from", "to_state": "to"}


@dataclass(frozen=True, kw_only=True)
class Event:
    """One entry of a job's log.

    `payload` is what the event's kind carries, for `match`:

        match event.payload:
            case Scalars(values={"loss": loss}):
                ...
            case StateChange(to_state="FAILED", message=message):
                ...

    `event["loss"]` and `event.get("loss")` find a scalar or a field of the payload by its name. The states of a
    StateChange are named "from" and "to" there.

    `sequence` is 1, 2, 3, … within the job and never used twice; `step` repeats after a rollback. `payload` is None if
    this release of the SDK does not know the kind.
    """

    sequence: int
    kind: EventKind
    time: datetime | None
    attempt: int
    step: int
    epoch: int
    payload: Payload | None

    @property
    def values(self) -> Mapping[str, Any]:
        """The payload as a mapping: its fields by name, or the scalars."""
        if self.payload is None:
            return {}
        if isinstance(self.payload, Scalars):
            return self.payload.values
        return {_KEYS.get(f.name, f.name): getattr(self.payload, f.name) for f in fields(self.payload)}

    def __getitem__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise KeyError(f"a {self.kind} event has no {name!r}; it has {', '.join(self.values)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self.values

    def get(self, name: str, default: Any = None) -> Any:
        return self.values.get(name, default)

    def __str__(self) -> str:
        """Return the event as one line for people. Of the scalars, it has the loss, accuracies and spread."""
        match self.payload:
            case Scalars(values=values):
                shown = [f"{name} {values[name]:.4g}" for name in _SHOWN if name in values]
                text = ", ".join(shown) or number_of(len(values), "scalar")
            case StateChange(to_state=state, message=message):
                text = f"{state}: {message}" if message else state
            case CheckpointSaved(name=name, num_bytes=num_bytes):
                text = f"saved {name}, {num_bytes / 1e6:.1f} MB"
            case Rollback(to_step=to_step):
                text = f"continues from step {to_step}"
            case Alert(reason=reason, message=message):
                text = f"{reason}: {message}"
            case Log(text=text):
                pass
            case SnapshotAdopted(num_images=num_images, num_added=num_added):
                text = f"now trains on {number_of(num_images, 'image')}, {num_added:,} of them new"
            case _:
                text = self.kind
        return f"step {self.step:>5}, epoch {self.epoch:>3}  {text}"


def event_from(message: pb.MetricsEvent) -> Event:
    """Convert an event of the contract."""
    kind = pb.MetricsEvent.Kind.Name(message.kind).removeprefix("KIND_").lower()
    return Event(
        sequence=message.sequence,
        kind=cast(EventKind, kind),
        time=_convert.time(message.time),
        attempt=message.attempt,
        step=message.step,
        epoch=message.epoch,
        payload=_payload(message),
    )


def _payload(message: pb.MetricsEvent) -> Payload | None:
    match message.kind:
        case pb.MetricsEvent.KIND_SCALARS:
            return Scalars(values=dict(message.scalars.values))
        case pb.MetricsEvent.KIND_STATE:
            change = message.state_change
            return StateChange(
                from_state=_convert.state(getattr(change, "from")),
                to_state=_convert.state(change.to),
                reason=change.reason,
                message=change.message,
            )
        case pb.MetricsEvent.KIND_CHECKPOINT:
            return CheckpointSaved(name=message.checkpoint.name, num_bytes=message.checkpoint.num_bytes)
        case pb.MetricsEvent.KIND_ROLLBACK:
            superseded_after = message.rollback.superseded_after_sequence
            return Rollback(to_step=message.rollback.to_step, superseded_after_sequence=superseded_after)
        case pb.MetricsEvent.KIND_ALERT:
            return Alert(reason=message.alert.reason, message=message.alert.message)
        case pb.MetricsEvent.KIND_LOG:
            return Log(level=_convert.level(message.log), text=message.log.text)
        case pb.MetricsEvent.KIND_SNAPSHOT:
            return SnapshotAdopted(num_images=message.snapshot.num_images, num_added=message.snapshot.num_added)
        case _:
            return None


def kind_names(kinds: Iterable[EventKind] | EventKind | None) -> list[str]:
    """Return the contract's names of these kinds. Raises ValueError for an unknown kind."""
    chosen = [kinds] if isinstance(kinds, str) else some("kinds", kinds) or []
    for kind in chosen:
        one_of("kinds", kind, KINDS)
    return [f"KIND_{kind.upper()}" for kind in chosen]


def follow(
    rpcs: Rpcs,
    job: str,
    *,
    after: int = 0,
    live: bool = True,
    kinds: Sequence[str] = (),
    reconnect_s: float | None = None,
    timeout_s: float | None = None,
    began: float | None = None,
) -> Generator[Event]:
    """Yield every event after the sequence number `after`, each once and in order, over as many connections as it
    takes. `kinds` are names that `kind_names` returned; none stands for all.

    Raises OutOfRange when `after` is older than the oldest event held, the last failure when the server could not be
    reached for `reconnect_s` (by default, the client's), and DeadlineExceeded when `timeout_s` has passed since `began`
    (by default, now).
    """
    cursor = after

    def open_stream() -> Stream[pb.SubscribeMetricsRequest, pb.SubscribeMetricsResponse]:
        request = pb.SubscribeMetricsRequest(train_job=job, after_sequence=cursor, follow=live, kinds=kinds)
        return rpcs.subscribe_metrics(request)

    deadlines = rpcs.channel.deadlines
    if reconnect_s is not None:
        deadlines = replace(deadlines, reconnect_s=reconnect_s)
    for message in replies(
        open_stream, deadlines, is_end=_is_end, is_pause=_is_drain, timeout_s=timeout_s, began=began
    ):
        for event in message.events:
            if event.sequence > cursor:
                cursor = event.sequence
                yield event_from(event)
        cursor = max(cursor, message.cursor)


def _is_end(message: pb.SubscribeMetricsResponse) -> bool:
    return message.HasField("end") and not _is_drain(message)


def _is_drain(message: pb.SubscribeMetricsResponse) -> bool:
    return message.HasField("end") and message.end.reason == pb.EndOfStream.REASON_DRAINING
