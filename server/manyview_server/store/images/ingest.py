"""Group commit of uploaded batches: one sync of the shards and one commit make a whole group durable.

An acknowledgement depends on the order: rows are inserted, bytes are written and synced, and then the rows are
committed. A crash before the commit leaves bytes after the committed position, which recovery cuts off.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from manyview_server.counted_noun import number_of
from manyview_server.errors import Aborted, FailedPrecondition, NotFound, ServiceError
from manyview_server.store.database.database import Database, disk_full
from manyview_server.store.images.batch import UploadBatch, chain
from manyview_server.store.images.batch_rows import OpenDataset, outcomes_again, save_dataset, save_upload, store_batch
from manyview_server.store.images.shard_writers import ShardWriter, ShardWriters
from manyview_server.store.images.shards import Position
from manyview_server.store.records import ImageOutcome

log = logging.getLogger(__name__)

FIND_UPLOAD = "SELECT dataset, committed_number, num_images, finished, digest FROM upload WHERE pk = ?"
FIND_DATASET = """
    SELECT uid, num_images, num_bytes, num_labels, num_labelled, num_rejected, shard, shard_bytes FROM dataset
    WHERE pk = ?
"""


class Ingest:
    """Writes groups of batches. Call it on the database thread only."""

    def __init__(self, database: Database, writers: ShardWriters, data_dir: Path, reserve_bytes: int) -> None:
        self._database = database
        self._writers = writers
        self._data_dir = data_dir
        self._reserve_bytes = reserve_bytes
        # The fence of the newest session of each upload, by the primary key of the upload. Only this session may write.
        # An entry disappears with its session.
        self.owners: WeakValueDictionary[int, asyncio.Event] = WeakValueDictionary()
        # The primary keys of the data sets of which a shard was closed. The caller of `commit` removes them.
        self.sealing: set[int] = set()

    def commit(self, group: Sequence[UploadBatch]) -> list[list[ImageOutcome] | ServiceError]:
        """Make a group durable. Return for each batch its outcomes, or the error with which it was refused.

        Raises the error of the disk if the whole group failed.
        """
        touched: dict[int, OpenDataset] = {}
        try:
            self._check_room(sum(batch.num_bytes for batch in group))
            answers = self._database.transact(lambda connection: self._write(connection, group, touched))
        except BaseException:
            for dataset in touched.values():
                _roll_back(dataset.writer)
            raise
        self.sealing |= {dataset.pk for dataset in touched.values() if dataset.writer.commit()}
        self._writers.trim()
        return answers

    def _check_room(self, num_bytes: int) -> None:
        """Raise ResourceExhausted DISK_FULL before the disk is full, so that checkpoints and the event log still have
        room."""
        disk = os.statvfs(self._data_dir)
        if disk.f_bavail * disk.f_frsize < self._reserve_bytes + num_bytes:
            raise disk_full()

    def _write(
        self, connection: sqlite3.Connection, group: Sequence[UploadBatch], touched: dict[int, OpenDataset]
    ) -> list[list[ImageOutcome] | ServiceError]:
        answers: list[list[ImageOutcome] | ServiceError] = []
        for batch in group:
            try:
                answers.append(self._batch(connection, batch, touched))
            except ServiceError as error:
                answers.append(error)
        for dataset in touched.values():
            dataset.writer.sync()
            save_dataset(connection, dataset)
        return answers

    def _batch(
        self, connection: sqlite3.Connection, batch: UploadBatch, touched: dict[int, OpenDataset]
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
            return outcomes_again(connection, pk, batch)
        if finished:
            raise FailedPrecondition(
                "UPLOAD_FINISHED", f"the upload was finished with {number_of(num_images, 'image')}"
            )
        if batch.number != committed + 1:
            message = f"batch {batch.number} came, but batch {committed + 1} was expected"
            raise Aborted("SEQUENCE_GAP", message, metadata={"expected": str(committed + 1)})
        if pk not in touched:
            touched[pk] = self._open(connection, pk)
        outcomes = store_batch(connection, touched[pk], batch)
        save_upload(connection, batch, outcomes, chain(digest, batch.images))
        return outcomes

    def _open(self, connection: sqlite3.Connection, pk: int) -> OpenDataset:
        uid, images, num_bytes, labels, labelled, rejected, shard, end = connection.execute(
            FIND_DATASET, (pk,)
        ).fetchone()
        return OpenDataset(
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
