"""Records to messages, and the few messages that become values: the one place where the two meet."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from manyview.v1 import (
    dataset_service_pb2,
    embed_service_pb2,
    model_service_pb2,
    types_pb2,
)
from manyview_server.errors import InvalidArgument
from manyview_server.front.names import invalid
from manyview_server.messages import EmbedDone, RowFailed
from manyview_server.store.records import Checkpoint, Dataset, ImageOutcome, ImageRecord, Upload

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
        outcome=f"OUTCOME_{outcome.outcome}",
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
        status=f"STATUS_{record.status}",
        error=image_error(record.reason, record.message),
        num_bytes=record.num_bytes,
        width=record.width,
        height=record.height,
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


def output(value: embed_service_pb2.EmbedOptions.Output, field: str = "options.output") -> str:
    """The network's output asked for."""
    if value not in OUTPUTS:
        raise _unknown_enum(field, value)
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
