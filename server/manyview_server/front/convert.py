"""Records to messages, and the few messages that become values: the one place where the two meet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from manyview.v1 import (
    dataset_service_pb2,
    embed_service_pb2,
    metrics_service_pb2,
    model_service_pb2,
    train_job_service_pb2,
    types_pb2,
)
from manyview_server.errors import InvalidArgument
from manyview_server.front.names import invalid
from manyview_server.messages import EmbedDone, RowFailed
from manyview_server.store.records import Checkpoint, Dataset, Event, ImageOutcome, ImageRecord, Job, Upload

DATA_TYPES = {
    types_pb2.Tensor.DATA_TYPE_UNSPECIFIED: "float32",
    types_pb2.Tensor.DATA_TYPE_FLOAT32: "float32",
    types_pb2.Tensor.DATA_TYPE_FLOAT16: "float16",
}
TENSOR_TYPES = {"float32": types_pb2.Tensor.DATA_TYPE_FLOAT32, "float16": types_pb2.Tensor.DATA_TYPE_FLOAT16}
OUTPUTS = {
    embed_service_pb2.EmbedOptions.OUTPUT_UNSPECIFIED: "backbone",
    embed_service_pb2.EmbedOptions.OUTPUT_BACKBONE: "backbone",
    embed_service_pb2.EmbedOptions.OUTPUT_PROJECTION: "projection",
}
EVENT_KINDS = {
    name: metrics_service_pb2.MetricsEvent.Kind.Value(f"KIND_{name.upper()}")
    for name in ("scalars", "state", "checkpoint", "rollback", "alert", "log")
}


def timestamp(seconds: float) -> Timestamp | None:
    """Seconds since 1970; 0 is a time that is not yet, and leaves the field unset."""
    if seconds == 0:
        return None
    time = Timestamp()
    time.FromMicroseconds(round(seconds * 1e6))
    return time


def image_id(value: int) -> str:
    """16 hexadecimal digits; empty for the 0 of a refused image."""
    return f"{value:016x}" if value else ""


def state(name: str) -> types_pb2.TrainJobState:
    """A job's state by the store's name for it."""
    return types_pb2.TrainJobState.Value(f"TRAIN_JOB_STATE_{name}" if name else "TRAIN_JOB_STATE_UNSPECIFIED")


def checkpoint_name(train_job_id: str, step: int) -> str:
    """The resource name of a job's checkpoint."""
    return f"trainJobs/{train_job_id}/checkpoints/{step}"


# ---- images in ----


def dataset(record: Dataset) -> dataset_service_pb2.Dataset:
    """A data set."""
    return dataset_service_pb2.Dataset(
        name=f"datasets/{record.dataset_id}",
        uid=record.uid,
        create_time=timestamp(record.create_time),
        num_images=record.num_images,
        num_bytes=record.num_bytes,
        num_labels=record.num_labels,
        num_labelled=record.num_labelled,
        num_rejected=record.num_rejected,
        num_unreadable=record.num_unreadable,
    )


def upload(record: Upload) -> dataset_service_pb2.Upload:
    """An upload's cursor."""
    return dataset_service_pb2.Upload(
        dataset=f"datasets/{record.dataset_id}",
        upload_id=record.upload_id,
        committed_number=record.committed_number,
        num_images=record.num_images,
        num_stored=record.num_stored,
        num_duplicates=record.num_duplicates,
        num_rejected=record.num_rejected,
        finished=record.finished,
        digest=record.digest,
    )


def image_result(outcome: ImageOutcome) -> dataset_service_pb2.ImageResult:
    """What became of one image of a batch."""
    return dataset_service_pb2.ImageResult(
        outcome=dataset_service_pb2.ImageResult.Outcome.Value(f"OUTCOME_{outcome.outcome}"),
        image_id=image_id(outcome.image_id),
        first_key=outcome.first_key,
        first_label=outcome.first_label,
        label_differs=outcome.label_differs,
        error=image_error(outcome.reason, outcome.message),
    )


def image_error(reason: str, message: str) -> types_pb2.ImageError | None:
    """An image's error, where there is one."""
    return types_pb2.ImageError(reason=reason, message=message) if reason else None


def stored_image(record: ImageRecord) -> dataset_service_pb2.StoredImage:
    """A line of a data set's listing."""
    return dataset_service_pb2.StoredImage(
        image_id=image_id(record.image_id),
        key=record.key,
        label=record.label,
        status=dataset_service_pb2.StoredImage.Status.Value(f"STATUS_{record.status}"),
        error=image_error(record.reason, record.message),
        num_bytes=record.num_bytes,
        width=record.width,
        height=record.height,
    )


# ---- training ----


def train_job(record: Job) -> train_job_service_pb2.TrainJob:
    """A train job; the method is part of its configuration."""
    failure, progress = record.failure, record.progress
    return train_job_service_pb2.TrainJob(
        name=f"trainJobs/{record.train_job_id}",
        uid=record.uid,
        dataset=f"datasets/{record.dataset_id}",
        num_images=record.num_images,
        config=struct({"method": record.method, **record.settings}),
        state=state(record.state),
        failure=failure
        and train_job_service_pb2.Failure(reason=failure.reason, message=failure.message, hint=failure.hint),
        progress=train_job_service_pb2.Progress(
            step=progress.step,
            num_steps=progress.num_steps,
            epoch=progress.epoch,
            num_epochs=progress.num_epochs,
            eta_s=progress.eta_s,
        ),
        create_time=timestamp(record.create_time),
        start_time=timestamp(record.start_time),
        end_time=timestamp(record.end_time),
        attempt=record.attempt,
        last_sequence=record.last_sequence,
        latest_checkpoint=checkpoint_name(record.train_job_id, record.latest_checkpoint)
        if record.latest_checkpoint >= 0
        else "",
        queue_position=record.queue_position,
        server_version=record.server_version,
    )


def struct(values: Mapping[str, Any]) -> Struct:
    """A JSON object; numbers become doubles on the way."""
    return json_format.ParseDict(dict(values), Struct())


def plain(config: Struct, field: str = "config") -> dict[str, Any]:
    """A configuration as JSON values: whole numbers become int again. Raises InvalidArgument for NaN and infinities."""
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
        raise invalid(field, f"{number} is no finite number")
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


# ---- events ----


def event(train_job_id: str, record: Event) -> metrics_service_pb2.MetricsEvent:
    """A logged event with the payload of its kind."""
    message = metrics_service_pb2.MetricsEvent(
        sequence=record.sequence,
        time=timestamp(record.time),
        attempt=record.attempt,
        step=record.step,
        epoch=record.epoch,
        kind=EVENT_KINDS[record.kind],
    )
    _fill_payload(message, train_job_id, record)
    return message


def _fill_payload(message: metrics_service_pb2.MetricsEvent, train_job_id: str, record: Event) -> None:
    payload = record.payload
    match record.kind:
        case "scalars":
            message.scalars.values.update(payload)
        case "state":
            change = metrics_service_pb2.StateChange(
                to=state(payload["to"]), reason=payload["reason"], message=payload["message"]
            )
            setattr(change, "from", state(payload["from"]))
            message.state_change.CopyFrom(change)
        case "checkpoint":
            message.checkpoint.name = checkpoint_name(train_job_id, payload["step"])
            message.checkpoint.num_bytes = payload["num_bytes"]
        case "rollback":
            message.rollback.to_step = payload["to_step"]
            message.rollback.superseded_after_sequence = payload["superseded_after_sequence"]
        case "alert":
            message.alert.reason = payload["reason"]
            message.alert.message = payload["message"]
        case "log":
            message.log.CopyFrom(log_text(record))


def log_text(record: Event) -> types_pb2.Log:
    """A log event's line."""
    return types_pb2.Log(
        level=types_pb2.Log.Level.Value(f"LEVEL_{record.payload['level'].upper()}"), text=record.payload["text"]
    )


def metrics_row(record: Event) -> metrics_service_pb2.MetricsRow:
    """A scalars event as a row of the table."""
    return metrics_service_pb2.MetricsRow(
        sequence=record.sequence,
        time=timestamp(record.time),
        attempt=record.attempt,
        step=record.step,
        epoch=record.epoch,
        values=record.payload,
    )


# ---- models and embeddings ----


def checkpoint_model(record: Checkpoint) -> model_service_pb2.Model:
    """A checkpoint as a model that can embed."""
    card = record.model
    return model_service_pb2.Model(
        name=record.name,
        train_job=f"trainJobs/{record.train_job_id}",
        step=record.step,
        epoch=record.epoch,
        method=card["method"],
        backbone=card["backbone"],
        feature_dim=card["feature_dim"],
        projection_dim=card["projection_dim"],
        image_size=card["image_size"],
        create_time=timestamp(record.create_time),
        num_bytes=record.num_bytes,
        weights="trained",
    )


def data_type(value: types_pb2.Tensor.DataType) -> str:
    """The element type asked for."""
    if value not in DATA_TYPES:
        raise _unknown_enum("options.data_type", value)
    return DATA_TYPES[value]


def output(value: embed_service_pb2.EmbedOptions.Output) -> str:
    """The network's output asked for."""
    if value not in OUTPUTS:
        raise _unknown_enum("options.output", value)
    return OUTPUTS[value]


def _unknown_enum(field: str, value: int) -> InvalidArgument:
    return invalid(field, f"{value} is no value of this enum")


def tensor(done: EmbedDone, type_name: str) -> types_pb2.Tensor:
    """The embeddings as they came from the worker."""
    return types_pb2.Tensor(data_type=TENSOR_TYPES[type_name], shape=done.shape, data=done.blobs[0])


def row_error(failed: RowFailed) -> embed_service_pb2.RowError:
    """Why one row is NaN."""
    return embed_service_pb2.RowError(row=failed.row, error=image_error(failed.reason, failed.message))


def timing(done: EmbedDone) -> embed_service_pb2.EmbedTiming:
    """Where the time went."""
    return embed_service_pb2.EmbedTiming(
        queue_ms=done.queue_ms, decode_ms=done.decode_ms, forward_ms=done.forward_ms, batch_images=done.batch_images
    )
