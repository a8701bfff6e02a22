"""The rows of a batch: its images, their labels, and the counters of its upload and its data set."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from manyview_server.errors import FailedPrecondition
from manyview_server.store.images import shard_writers
from manyview_server.store.images.batch import UploadBatch
from manyview_server.store.images.shard_writers import ShardWriter, to_json
from manyview_server.store.images.shards import image_id_of
from manyview_server.store.records import CheckedImage, ImageOutcome, RejectedImage

FIND_IMAGE = """
    SELECT key, coalesce(label.name, ''), upload, batch FROM image
    LEFT JOIN label ON label.dataset = image.dataset AND label.ordinal = image.label
    WHERE image.dataset = ? AND image_id = ?
"""

FIND_IDS = "SELECT image_id FROM image WHERE dataset = ? AND image_id IN (SELECT value FROM json_each(?))"


@dataclass(slots=True, kw_only=True)
class OpenDataset:
    """The counters and the shard writer of a data set while a group is written."""

    pk: int
    writer: ShardWriter
    num_images: int
    num_bytes: int
    num_labels: int
    num_labelled: int
    num_rejected: int
    labels: dict[str, int] = field(default_factory=dict)


def store_batch(connection: sqlite3.Connection, dataset: OpenDataset, batch: UploadBatch) -> list[ImageOutcome]:
    """Insert the rows of a batch and buffer its images, except duplicates and refused ones. Return the outcomes."""
    ids = [image_id_of(image.sha256) for image in batch.images]
    # One query for all: each call of SQLite gives the interpreter to another thread.
    known = {row[0] for row in connection.execute(FIND_IDS, (dataset.pk, to_json(ids)))}
    outcomes: list[ImageOutcome] = []
    for image, image_id in zip(batch.images, ids, strict=True):
        if isinstance(image, RejectedImage):
            outcomes.append(_reject(connection, dataset, image))
        elif image_id in known:
            first_key, first_label, *_ = connection.execute(FIND_IMAGE, (dataset.pk, image_id)).fetchone()
            outcomes.append(_duplicate(image_id, image, first_key, first_label))
        else:
            outcomes.append(_store(connection, dataset, batch, image, image_id))
            known.add(image_id)
    return outcomes


def _store(
    connection: sqlite3.Connection, dataset: OpenDataset, batch: UploadBatch, image: CheckedImage, image_id: int
) -> ImageOutcome:
    label = _label_ordinal(connection, dataset, image.label)
    meta = {
        "sha256": image.sha256.hex(),
        "key": image.key,
        "label": image.label,
        "width": image.width,
        "height": image.height,
    }
    if dataset.num_images % shard_writers.MAX_SHARD_IMAGES == 0:
        dataset.writer.seal()
    place = dataset.writer.append(image_id, image.extension, image.data, meta)
    dataset.num_images += 1
    dataset.num_bytes += len(image.data)
    dataset.num_labelled += label >= 0
    connection.execute(
        "INSERT INTO image VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(dataset.pk, dataset.num_images, image_id, place.shard, place.offset, len(image.data)),
            *(label, image.width, image.height, image.key, batch.upload, batch.number),
        ),
    )
    return ImageOutcome(outcome="STORED", image_id=image_id)


def _duplicate(image_id: int, image: CheckedImage, first_key: str, first_label: str) -> ImageOutcome:
    differs = image.label != first_label
    return ImageOutcome(
        outcome="DUPLICATE",
        image_id=image_id,
        first_key=first_key,
        first_label=first_label if differs else "",
        label_differs=differs,
    )


def _reject(connection: sqlite3.Connection, dataset: OpenDataset, image: RejectedImage) -> ImageOutcome:
    dataset.num_rejected += 1
    connection.execute(
        "INSERT INTO rejected VALUES (?, ?, ?, ?, ?, ?, ?)",
        (dataset.pk, dataset.num_rejected, image.key, image.label, image.reason, image.message, image.num_bytes),
    )
    return ImageOutcome(outcome="REJECTED", reason=image.reason, message=image.message)


def _label_ordinal(connection: sqlite3.Connection, dataset: OpenDataset, name: str) -> int:
    if not name:
        return -1
    if name not in dataset.labels:
        row = connection.execute(
            "SELECT ordinal FROM label WHERE dataset = ? AND name = ?", (dataset.pk, name)
        ).fetchone()
        if row is None:
            row = (dataset.num_labels,)
            connection.execute("INSERT INTO label VALUES (?, ?, ?)", (dataset.pk, dataset.num_labels, name))
            dataset.num_labels += 1
        dataset.labels[name] = row[0]
    return dataset.labels[name]


def outcomes_again(connection: sqlite3.Connection, dataset: int, batch: UploadBatch) -> list[ImageOutcome]:
    """Return the outcomes of a batch that was committed before. The row of each image names the batch it came with.

    Raises FailedPrecondition UPLOAD_CHANGED if these are not the images that were committed.
    """
    outcomes: list[ImageOutcome] = []
    seen: set[int] = set()
    for image in batch.images:
        if isinstance(image, RejectedImage):
            outcomes.append(ImageOutcome(outcome="REJECTED", reason=image.reason, message=image.message))
            continue
        image_id = image_id_of(image.sha256)
        row = connection.execute(FIND_IMAGE, (dataset, image_id)).fetchone()
        if row is None:
            message = f"batch {batch.number} was acknowledged before, with other images"
            raise FailedPrecondition("UPLOAD_CHANGED", message)
        key, label, upload, number = row
        if (upload, number) == (batch.upload, batch.number) and image_id not in seen:
            outcomes.append(ImageOutcome(outcome="STORED", image_id=image_id))
        else:
            outcomes.append(_duplicate(image_id, image, key, label))
        seen.add(image_id)
    return outcomes


def save_upload(
    connection: sqlite3.Connection, batch: UploadBatch, outcomes: Sequence[ImageOutcome], digest: bytes
) -> None:
    """Update the row of an upload after a batch. `digest` is the chained digest with the batch."""
    kinds = [outcome.outcome for outcome in outcomes]
    connection.execute(
        """
        UPDATE upload SET committed_number = ?, num_images = num_images + ?, num_stored = num_stored + ?,
            num_duplicates = num_duplicates + ?, num_rejected = num_rejected + ?, digest = ?
        WHERE pk = ?
        """,
        (
            *(batch.number, len(kinds), kinds.count("STORED"), kinds.count("DUPLICATE"), kinds.count("REJECTED")),
            *(digest, batch.upload),
        ),
    )


def save_dataset(connection: sqlite3.Connection, dataset: OpenDataset) -> None:
    """Update the counters and the committed position of a data set. Call it after the sync of its shard."""
    shard, end = dataset.writer.position
    connection.execute(
        """
        UPDATE dataset SET num_images = ?, num_bytes = ?, num_labels = ?, num_labelled = ?, num_rejected = ?,
            shard = ?, shard_bytes = ?
        WHERE pk = ?
        """,
        (
            *(dataset.num_images, dataset.num_bytes, dataset.num_labels, dataset.num_labelled, dataset.num_rejected),
            *(shard, end, dataset.pk),
        ),
    )
