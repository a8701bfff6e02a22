"""Convert the records of data sets, images and uploads to messages of the contract."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from manyview.v1 import dataset_service_pb2, types_pb2
from manyview_server.store.records import Dataset, ImageOutcome, ImageRecord, Upload


def timestamp(seconds: float) -> Timestamp | None:
    """Convert seconds since 1970. 0 means that there is no time yet: it gives None, which leaves the field unset."""
    if seconds == 0:
        return None
    time = Timestamp()
    time.FromMicroseconds(round(seconds * 1e6))
    return time


def image_id(value: int) -> str:
    """Return 16 hexadecimal digits, or "" for a refused image, which has the id 0."""
    return f"{value:016x}" if value else ""


def dataset(record: Dataset) -> dataset_service_pb2.Dataset:
    """Convert a data set."""
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
    """Convert the cursor of an upload."""
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
    """Convert the outcome of one image of a batch."""
    return dataset_service_pb2.ImageResult(
        outcome=f"OUTCOME_{outcome.outcome}",
        image_id=image_id(outcome.image_id),
        first_key=outcome.first_key,
        first_label=outcome.first_label,
        label_differs=outcome.label_differs,
        error=image_error(outcome.reason, outcome.message),
    )


def image_error(reason: str, message: str) -> types_pb2.ImageError | None:
    """Return the error of an image, or None if `reason` is empty."""
    return types_pb2.ImageError(reason=reason, message=message) if reason else None


def stored_image(record: ImageRecord) -> dataset_service_pb2.StoredImage:
    """Convert an image of a data set."""
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
