"""Group commit of uploaded batches: one sync of the shards and one commit make a whole group durable.

An acknowledgement depends on the order: rows are inserted, bytes are written and synced, and then the rows are
committed. A crash before the commit leaves bytes after the committed position, which recovery cuts off.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

from manyview_server.errors import Aborted, FailedPrecondition, NotFound, ServiceError
from manyview_server.store.database.database import Database, disk_full
from manyview_server.store.images.shard_writers import ShardWriter, ShardWriters
from manyview_server.store.images.shards import Position, image_id_of
from manyview_server.store.records import CheckedImage, ImageOutcome, RejectedImage

log = logging.getLogger(__name__)

Checked = CheckedImage | RejectedImage

FIND_IMAGE = """
    SELECT key, coalesce(label.name, ''), upload, batch FROM image
    LEFT JOIN label ON label.dataset = image.dataset AND label.ordinal = image.label
    WHERE image.dataset = ? AND image_id = ?
"""
FIND_UPLOAD = "SELECT dataset, committed_number, num_images, finished, digest FROM upload WHERE pk = ?"
FIND_DATASET = """
    SELECT uid, num_images, num_bytes, num_labels, num_labelled, num_rejected, shard, shard_bytes FROM dataset
    WHERE pk = ?
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch that waits to be committed.

    `session` is the fence of its session: only the newest of an upload may write.
    """

    upload: int
    session: asyncio.Event
    number: int
    images: Sequence[Checked] = field(repr=False)

    @property
    def num_bytes(self) -> int:
        """The size of its images in bytes."""
        return sum(len(image.data) for image in self.images if isinstance(image, CheckedImage))


@dataclass(slots=True, kw_only=True)
class _OpenDataset:
    """The counters and the shard writer of a data set while a group is written."""

    pk: int
    writer: ShardWriter
    num_images: int
    num_bytes: int
    num_labels: int
    num_labelled: int
    num_rejected: int
    labels: dict[str, int] = field(default_factory=dict)


class Ingest:
    """Writes groups of batches. On the database thread only."""

    def __init__(self, database: Database, writers: ShardWriters, data_dir: Path, reserve_bytes: int) -> None:
        self._database = database
        self._writers = writers
        self._data_dir = data_dir
        self._reserve_bytes = reserve_bytes
        # The fence of the newest session of each upload, by the primary key of the upload. Only this session may write.
        # An entry disappears with its session.
        self.owners: WeakValueDictionary[int, asyncio.Event] = WeakValueDictionary()

    def commit(self, group: Sequence[Batch]) -> list[list[ImageOutcome] | ServiceError]:
        """Make a group durable. Return for each batch its outcomes, or the error with which it was refused.

        Raises the error of the disk if the whole group failed.
        """
        touched: dict[int, _OpenDataset] = {}
        try:
            self._check_room(sum(batch.num_bytes for batch in group))
            answers = self._database.transact(lambda connection: self._write(connection, group, touched))
        except BaseException:
            for dataset in touched.values():
                _roll_back(dataset.writer)
            raise
        for dataset in touched.values():
            dataset.writer.commit()
        self._writers.trim()
        return answers

    def _check_room(self, num_bytes: int) -> None:
        """Raise ResourceExhausted DISK_FULL before the disk is full, so that checkpoints and the event log still have
        room."""
        disk = os.statvfs(self._data_dir)
        if disk.f_bavail * disk.f_frsize < self._reserve_bytes + num_bytes:
            raise disk_full()

    def _write(
        self, connection: sqlite3.Connection, group: Sequence[Batch], touched: dict[int, _OpenDataset]
    ) -> list[list[ImageOutcome] | ServiceError]:
        answers: list[list[ImageOutcome] | ServiceError] = []
        for batch in group:
            try:
                answers.append(self._batch(connection, batch, touched))
            except ServiceError as error:
                answers.append(error)
        for dataset in touched.values():
            dataset.writer.sync()
            _save_dataset(connection, dataset)
        return answers

    def _batch(
        self, connection: sqlite3.Connection, batch: Batch, touched: dict[int, _OpenDataset]
    ) -> list[ImageOutcome]:
        """Insert the rows of a batch.

        Raises ServiceError before it changes anything, so that the others are unaffected.
        """
        row = connection.execute(FIND_UPLOAD, (batch.upload,)).fetchone()
        if row is None:
            raise NotFound("DATASET_NOT_FOUND", "the data set was deleted while images were uploaded to it")
        pk, committed, num_images, finished, digest = row
        if self.owners.get(batch.upload) is not batch.session:
            raise upload_fenced()
        if batch.number <= committed:
            return _answer_again(connection, pk, batch)
        if finished:
            raise FailedPrecondition("UPLOAD_FINISHED", f"the upload was finished with {num_images} images")
        if batch.number != committed + 1:
            message = f"batch {batch.number} came, but batch {committed + 1} was expected"
            raise Aborted("SEQUENCE_GAP", message, metadata={"expected": str(committed + 1)})
        if pk not in touched:
            touched[pk] = self._open(connection, pk)
        outcomes = [_store(connection, touched[pk], batch, image) for image in batch.images]
        _save_upload(connection, batch, outcomes, chain(digest, batch.images))
        return outcomes

    def _open(self, connection: sqlite3.Connection, pk: int) -> _OpenDataset:
        uid, images, num_bytes, labels, labelled, rejected, shard, end = connection.execute(
            FIND_DATASET, (pk,)
        ).fetchone()
        return _OpenDataset(
            pk=pk,
            writer=self._writers.get(pk, uid, Position(shard, end)),
            num_images=images,
            num_bytes=num_bytes,
            num_labels=labels,
            num_labelled=labelled,
            num_rejected=rejected,
        )


def _roll_back(writer: ShardWriter) -> None:
    try:
        writer.rollback()
    except OSError:
        # The caller gets the failure that led here.
        log.exception("a shard could not be truncated; the next batch or the next start truncates it")


def upload_fenced() -> Aborted:
    """Return the error of a session whose upload another session has opened."""
    return Aborted("UPLOAD_FENCED", "another stream has opened this upload")


def chain(digest: bytes, images: Sequence[Checked]) -> bytes:
    """Return the digest of an upload after these images.

    Each image adds SHA-256(previous digest + SHA-256 of the image).
    """
    for image in images:
        digest = hashlib.sha256(digest + image.sha256).digest()
    return digest


def _store(connection: sqlite3.Connection, dataset: _OpenDataset, batch: Batch, image: Checked) -> ImageOutcome:
    if isinstance(image, RejectedImage):
        return _reject(connection, dataset, image)
    image_id = image_id_of(image.sha256)
    first = connection.execute(FIND_IMAGE, (dataset.pk, image_id)).fetchone()
    if first is not None:
        return _duplicate(image_id, image, first[0], first[1])
    label = _label_ordinal(connection, dataset, image.label)
    meta = {
        "sha256": image.sha256.hex(),
        "key": image.key,
        "label": image.label,
        "width": image.width,
        "height": image.height,
    }
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


def _reject(connection: sqlite3.Connection, dataset: _OpenDataset, image: RejectedImage) -> ImageOutcome:
    dataset.num_rejected += 1
    connection.execute(
        "INSERT INTO rejected VALUES (?, ?, ?, ?, ?, ?, ?)",
        (dataset.pk, dataset.num_rejected, image.key, image.label, image.reason, image.message, image.num_bytes),
    )
    return ImageOutcome(outcome="REJECTED", reason=image.reason, message=image.message)


def _label_ordinal(connection: sqlite3.Connection, dataset: _OpenDataset, name: str) -> int:
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


def _answer_again(connection: sqlite3.Connection, dataset: int, batch: Batch) -> list[ImageOutcome]:
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


def _save_upload(connection: sqlite3.Connection, batch: Batch, outcomes: Sequence[ImageOutcome], digest: bytes) -> None:
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


def _save_dataset(connection: sqlite3.Connection, dataset: _OpenDataset) -> None:
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
