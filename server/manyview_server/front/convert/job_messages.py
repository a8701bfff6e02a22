"""Convert train jobs, their configurations and their events to messages of the contract."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, assert_never

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct, Value

from manyview.v1 import metrics_service_pb2, train_job_service_pb2, types_pb2
from manyview_server.front.convert.dataset_messages import timestamp
from manyview_server.front.rpc.resource_names import invalid
from manyview_server.store.event_payloads import (
    Alert,
    CheckpointSaved,
    Log,
    Rollback,
    Scalars,
    SnapshotAdopted,
    StateChange,
)
from manyview_server.store.records import Event, Job
from manyview_server.supervise.timers.estimate import Estimate


def state(name: str) -> str:
    """Return the contract's name of a state, which is the store's name with a prefix."""
    return f"TRAIN_JOB_STATE_{name or 'UNSPECIFIED'}"


def checkpoint_name(train_job_id: str, step: int) -> str:
    """Return the resource name of a job's checkpoint."""
    return f"trainJobs/{train_job_id}/checkpoints/{step}"


def train_job(record: Job) -> train_job_service_pb2.TrainJob:
    """Convert a train job. Its method becomes part of its configuration."""
    progress = record.progress
    message = train_job_service_pb2.TrainJob(
        name=f"trainJobs/{record.train_job_id}",
        uid=record.uid,
        dataset=f"datasets/{record.dataset_id}",
        num_images=record.num_images,
        config=struct({"method": record.method, **record.settings}),
        state=state(record.state),
        progress=train_job_service_pb2.Progress(
            step=progress.step,
            num_steps=progress.num_steps,
            epoch=progress.epoch,
            num_epochs=progress.num_epochs,
            eta_s=progress.eta_s,
            activity=activity(record),
        ),
        create_time=timestamp(record.create_time),
        start_time=timestamp(record.start_time),
        end_time=timestamp(record.end_time),
        attempt=record.attempt,
        last_sequence=record.last_sequence,
        queue_position=record.queue_position,
        server_version=record.server_version,
        continued_from=record.continued_from,
        follow=follow(record.min_images),
    )
    if record.failure is not None:
        failure = record.failure
        message.failure.reason, message.failure.message = failure.reason, failure.message
        message.failure.hint = failure.hint
    if record.latest_checkpoint >= 0:
        message.latest_checkpoint = checkpoint_name(record.train_job_id, record.latest_checkpoint)
    return message


def activity(record: Job) -> train_job_service_pb2.Activity | None:
    """Return the work that the job does now, or None while it is paused and once it is terminal."""
    message = train_job_service_pb2.Activity
    now = record.progress.activity
    match record.state:
        case "QUEUED" if record.num_available < record.min_images and not record.num_images:
            kind = message.KIND_WAITING_FOR_IMAGES
            return message(kind=kind, done=record.num_available, total=record.min_images)
        case "QUEUED":
            return message(kind=message.KIND_WAITING_FOR_DEVICE)
        case "STARTING" | "RUNNING" if now.kind:
            return message(kind=f"KIND_{now.kind}", done=now.done, total=now.total)
        case "STARTING" | "RECOVERING":
            return message(kind=message.KIND_STARTING_WORKER)
        case "RUNNING":
            return message(kind=message.KIND_TRAINING)
        case "PAUSING" | "CANCELLING":
            return message(kind=message.KIND_STOPPING)
    return None


def follow(min_images: int) -> train_job_service_pb2.Follow | None:
    """Return the `follow` of a job, or None if the job does not follow its data set."""
    return train_job_service_pb2.Follow(min_images=min_images) if min_images else None


def estimate(found: Estimate) -> train_job_service_pb2.Estimate:
    """Convert the estimate of how long a job takes."""
    return train_job_service_pb2.Estimate(total_s=found.total_s, step_s=found.step_s, text=found.text)


def struct(values: Mapping[str, Any]) -> Struct:
    """Convert a JSON object. All numbers become doubles."""
    return json_format.ParseDict(dict(values), Struct())


def plain(config: Struct, field: str = "config") -> dict[str, Any]:
    """Return a configuration as JSON values. Whole numbers become int again.

    Raises InvalidArgument for NaN and infinities.
    """
    return {key: _plain_value(value, f"{field}.{key}") for key, value in config.fields.items()}


def _plain_value(value: Value, field: str) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        return _plain_number(value.number_value, field)
    if kind == "struct_value":
        return plain(value.struct_value, field)
    if kind == "list_value":
        return [_plain_value(item, f"{field}[{i}]") for i, item in enumerate(value.list_value.values)]
    if kind == "null_value" or kind is None:
        return None
    return getattr(value, kind)


def _plain_number(number: float, field: str) -> int | float:
    if not math.isfinite(number):
        raise invalid(field, f"{number} must be a finite number")
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


# ---- events ----


def event(train_job_id: str, record: Event) -> metrics_service_pb2.MetricsEvent:
    """Convert an event with the payload of its kind."""
    message = metrics_service_pb2.MetricsEvent(
        sequence=record.sequence,
        time=timestamp(record.time),
        attempt=record.attempt,
        step=record.step,
        epoch=record.epoch,
        kind=f"KIND_{record.kind.upper()}",
    )
    _fill_payload(message, train_job_id, record)
    return message


def _fill_payload(message: metrics_service_pb2.MetricsEvent, train_job_id: str, record: Event) -> None:
    match record.payload:
        case Scalars(values=values):
            message.scalars.values.update(values)
        case StateChange() as change:
            # `from` is a keyword of Python, so the field cannot be set as an attribute.
            states = {"from": state(change.from_state), "to": state(change.to_state)}
            json_format.ParseDict(states, message.state_change)
            message.state_change.reason = change.reason
            message.state_change.message = change.message
        case CheckpointSaved(step=step, num_bytes=num_bytes):
            message.checkpoint.name = checkpoint_name(train_job_id, step)
            message.checkpoint.num_bytes = num_bytes
        case Rollback() as rollback:
            message.rollback.to_step = rollback.to_step
            message.rollback.superseded_after_sequence = rollback.superseded_after_sequence
        case Alert(reason=reason, message=text):
            message.alert.reason = reason
            message.alert.message = text
        case Log():
            message.log.CopyFrom(log_text(record))
        case SnapshotAdopted(num_images=num_images, num_added=num_added):
            message.snapshot.num_images = num_images
            message.snapshot.num_added = num_added
        case unknown:
            assert_never(unknown)


def log_text(record: Event) -> types_pb2.Log:
    """Return the log line of a log event or an alert."""
    match record.payload:
        case Alert(reason=reason, message=message):
            return types_pb2.Log(level=types_pb2.Log.LEVEL_WARNING, text=f"{reason}: {message}")
        case Log(level=level, text=text):
            return types_pb2.Log(level=f"LEVEL_{level.upper()}", text=text)
        case _:
            raise ValueError(f"a {record.kind} event has no line")


def metrics_row(record: Event) -> metrics_service_pb2.MetricsRow:
    """Convert a scalars event to a row of the table."""
    assert isinstance(record.payload, Scalars)
    return metrics_service_pb2.MetricsRow(
        sequence=record.sequence,
        time=timestamp(record.time),
        attempt=record.attempt,
        step=record.step,
        epoch=record.epoch,
        values=record.payload.values,
    )
