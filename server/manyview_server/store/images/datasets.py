"""The registry of data sets, the listing of their images, and the snapshots that training reads."""

from __future__ import annotations

import re
import sqlite3
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manyview_server.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from manyview_server.link.decode_notes import QUARANTINE
from manyview_server.store.database.database import Database
from manyview_server.store.database.similar_ids import hint
from manyview_server.store.deletions import Deletions
from manyview_server.store.durable_files import sync_directory
from manyview_server.store.images.dataset_index import DatasetIndexes
from manyview_server.store.images.image_rows import ImagePage, ImagePart, find, image_at, images_part
from manyview_server.store.images.shard_writers import ShardWriters
from manyview_server.store.images.snapshots import Snapshot
from manyview_server.store.records import Dataset, FoundImage, ImageRecord, ImageRef
from manyview_server.store.text_limit import shortened

COLUMNS = "dataset_id, uid, create_time, num_images, num_bytes, num_labels, num_labelled, num_rejected, num_unreadable"
# A page, and the token of the next page: "" after the last one.
DatasetPage = tuple[list[Dataset], str]
ImageRecords = list[ImageRecord]
FoundImages = list[FoundImage]
# Types that a method cannot name, because the class has a method of the name `list`.
Rows = list[tuple[Any, ...]]
ImagesFound = list[tuple[str, ImageRecord]]

LOOKUP_CHUNK_ROWS = 200
"""The images that one visit to the database thread looks up. Each may take several reads of the file."""
LIST_CHUNK_ROWS = 5_000
"""The labels or positions that one visit to the database thread reads."""
UNREADABLE_CHUNK_ROWS = 10_000
"""The unreadable images that one visit to the database thread looks at: about 10 ms, for which commits wait."""
MAX_POSITION = 2**63 - 1


def dataset_pk(connection: sqlite3.Connection, dataset_id: str) -> int:
    """Return the primary key of the data set's row. Raises NotFound."""
    row = connection.execute("SELECT pk FROM dataset WHERE dataset_id = ?", (dataset_id,)).fetchone()
    if row is None:
        message = f"no data set {dataset_id!r}{hint(connection, 'dataset', 'dataset_id', dataset_id)}"
        raise NotFound("DATASET_NOT_FOUND", message, metadata={"dataset": dataset_id})
    return int(row[0])


def has_dataset(connection: sqlite3.Connection, dataset_id: str) -> bool:
    """Return whether there is a data set of this id."""
    return connection.execute("SELECT 1 FROM dataset WHERE dataset_id = ?", (dataset_id,)).fetchone() is not None


def read_dataset(connection: sqlite3.Connection, pk: int) -> Dataset:
    """Return the data set in row `pk`."""
    row = connection.execute(f"SELECT {COLUMNS} FROM dataset WHERE pk = ?", (pk,)).fetchone()
    return _dataset(row)


def _dataset(row: tuple[object, ...]) -> Dataset:
    names = COLUMNS.split(", ")
    return Dataset(**dict(zip(names, row, strict=True)))  # type: ignore[arg-type]


def delete_rows(
    connection: sqlite3.Connection, deletions: Deletions, pk: int, images_dir: Path, embeddings_dir: Path
) -> None:
    """Delete the data set in row `pk`, and note that its images and embeddings must be removed."""
    connection.execute("DELETE FROM upload WHERE dataset = ?", (pk,))
    connection.execute("DELETE FROM dataset WHERE pk = ?", (pk,))
    deletions.add(connection, images_dir, dataset=pk)
    deletions.add(connection, embeddings_dir)


class DatasetStore:
    """The data sets of a data directory."""

    def __init__(
        self,
        database: Database,
        datasets_dir: Path,
        writers: ShardWriters,
        deletions: Deletions,
        clock: Callable[[], float] = time.time,
        *,
        embeddings_dir: Path,
    ) -> None:
        self._database = database
        self._datasets_dir = datasets_dir
        self._indexes = DatasetIndexes(database, datasets_dir)
        self._writers = writers
        self._deletions = deletions
        self._embeddings_dir = embeddings_dir
        self._clock = clock

    def directory(self, uid: str) -> Path:
        """Return the directory of the data set's shards."""
        return self._datasets_dir / uid

    async def create(self, dataset_id: str) -> Dataset:
        """Create an empty data set. Raises AlreadyExists DATASET_EXISTS."""

        def run(connection: sqlite3.Connection) -> Dataset:
            if has_dataset(connection, dataset_id):
                raise AlreadyExists("DATASET_EXISTS", f"the data set {dataset_id!r} already exists")
            return read_dataset(connection, self.insert(connection, dataset_id))

        return await self._database.write(run)

    def insert(self, connection: sqlite3.Connection, dataset_id: str, *, created_by_upload: bool = False) -> int:
        """Create an empty data set within a transaction. Return the primary key of its row."""
        uid = uuid.uuid4().hex
        # Make the directory first: after a crash, an empty directory without a row is harmless, the reverse is not.
        self.directory(uid).mkdir(mode=0o700)
        sync_directory(self._datasets_dir)
        insert = "INSERT INTO dataset (dataset_id, uid, create_time, created_by_upload) VALUES (?, ?, ?, ?)"
        cursor = connection.execute(insert, (dataset_id, uid, self._clock(), created_by_upload))
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    async def get(self, dataset_id: str) -> Dataset:
        """Return the data set. Raises NotFound DATASET_NOT_FOUND."""
        return await self._database.read(lambda c: read_dataset(c, dataset_pk(c, dataset_id)))

    async def list(self, page_size: int, page_token: str = "") -> DatasetPage:
        """Return a page of data sets, ordered by their id."""
        sql = f"SELECT {COLUMNS} FROM dataset WHERE dataset_id > ? ORDER BY dataset_id LIMIT ?"

        def run(connection: sqlite3.Connection) -> DatasetPage:
            found = [_dataset(row) for row in connection.execute(sql, (page_token, page_size + 1))]
            return found[:page_size], found[page_size - 1].dataset_id if len(found) > page_size else ""

        return await self._database.read(run)

    async def delete(self, dataset_id: str) -> None:
        """Remove the data set and its images. Running uploads to it fail.

        Raises FailedPrecondition DATASET_IN_USE while a job that is not terminal trains on it.
        """

        def run(connection: sqlite3.Connection) -> None:
            self.remove(connection, dataset_pk(connection, dataset_id))

        await self._database.write(run, vital=True)
        await self.sweep()

    def remove(self, connection: sqlite3.Connection, pk: int) -> None:
        """Remove the data set in row `pk` within a transaction. Call `sweep` after it.

        Raises FailedPrecondition DATASET_IN_USE while a job that is not terminal trains on it.
        """
        dataset = read_dataset(connection, pk)
        _refuse_in_use(connection, dataset.dataset_id, dataset.uid)
        directories = (self.directory(dataset.uid), self._embeddings_dir / dataset.uid)
        delete_rows(connection, self._deletions, pk, *directories)
        self._writers.forget(pk)

    async def sweep(self) -> None:
        """Remove the images of deleted data sets from the disk."""
        await self._deletions.sweep()

    async def images(
        self, dataset_id: str, statuses: Collection[str], page_size: int, page_token: str = ""
    ) -> ImagePage:
        """Return a page of images with these statuses: committed images in their order, and then rejected ones.

        No status means STORED and UNREADABLE. A token belongs to the statuses that it was given for.
        """
        if page_token and not re.fullmatch(r"[ir][0-9]{1,18}", page_token):
            raise InvalidArgument("PAGE_TOKEN_INVALID", "the page token does not belong to this list")
        wanted = frozenset(statuses) or frozenset({"STORED", "UNREADABLE"})
        found: ImagesFound = []
        token = page_token or "i0"
        # One more than a page shows whether there is a next page.
        while token and (missing := page_size + 1 - len(found)):
            read = partial(_part_of, dataset_id=dataset_id, wanted=wanted, most=missing, token=token)
            part, token = await self._database.read(read)
            found += part
        records = [record for _, record in found[:page_size]]
        return records, found[page_size - 1][0] if len(found) > page_size else ""

    async def find_images(self, dataset_id: str, refs: Sequence[ImageRef]) -> FoundImages:
        """Return the committed images that `refs` name, in the same order.

        Raises NotFound IMAGE_NOT_FOUND and FailedPrecondition KEY_AMBIGUOUS.
        """
        found: FoundImages = []
        for start in range(0, len(refs), LOOKUP_CHUNK_ROWS):
            part = refs[start : start + LOOKUP_CHUNK_ROWS]
            found += await self._database.read(partial(_find_in, dataset_id=dataset_id, refs=part))
        return found

    async def images_at(self, uid: str, positions: Sequence[int]) -> ImageRecords:
        """Return the images at these positions. They count from 0 in the order of the commits, like the rows of a
        snapshot.

        Raises NotFound DATASET_NOT_FOUND if the data set has been deleted.
        """
        found: ImageRecords = []
        for start in range(0, len(positions), LOOKUP_CHUNK_ROWS):
            part = positions[start : start + LOOKUP_CHUNK_ROWS]
            found += await self._database.read(partial(_at_in, uid=uid, positions=part))
        return found

    async def snapshot(self, dataset_id: str, version: int | None = None, *, first: int = 0) -> Snapshot:
        """Return the first `version` images, or all for None, without the first `first` of them.

        A snapshot of the same version is always the same.
        """

        def head(connection: sqlite3.Connection) -> tuple[int, Dataset]:
            pk = dataset_pk(connection, dataset_id)
            return pk, read_dataset(connection, pk)

        pk, dataset = await self._database.read(head)
        last = dataset.num_images if version is None else version
        if not 0 <= first <= last <= dataset.num_images:
            raise ValueError(f"images {first} to {last} were asked for, and the data set has {dataset.num_images}")
        return Snapshot(dataset=dataset, rows=await self._indexes.of(pk, dataset.uid).rows(first, last))

    async def index_sealed_shards(self, pk: int) -> None:
        """Write the index files that are missing for the data set in row `pk`, unless it was deleted."""
        sql = "SELECT uid, num_images FROM dataset WHERE pk = ?"
        found = await self._database.read(lambda connection: connection.execute(sql, (pk,)).fetchone())
        if found is not None:
            uid, num_images = found
            await self._indexes.of(pk, uid).rows(num_images, num_images)

    async def labels(self, uid: str) -> tuple[str, ...]:
        """Return the labels of a data set in the order in which they first appeared, so that the ordinal of a label
        stays the same as the data set grows."""
        sql = """
            SELECT ordinal, name FROM label JOIN dataset ON dataset.pk = label.dataset
            WHERE uid = :uid AND ordinal > :after ORDER BY ordinal LIMIT :most
        """
        return tuple(name for _, name in await self._all_rows(sql, {"uid": uid, "after": -1}))

    async def unreadable_ids(self, uid: str, reason: str, first: int = 0, last: int = MAX_POSITION) -> tuple[int, ...]:
        """Return the ids of the images at the positions from `first` to `last` that are unreadable for this reason."""
        sql = """
            SELECT part.position, image_id FROM (
                SELECT dataset, position, reason FROM unreadable
                WHERE dataset = (SELECT pk FROM dataset WHERE uid = ?) AND position > ? AND position <= ?
                ORDER BY position LIMIT ?
            ) AS part
            LEFT JOIN image ON reason = ? AND image.dataset = part.dataset AND image.position = part.position
            ORDER BY part.position
        """

        def read(connection: sqlite3.Connection) -> list[tuple[int, int | None]]:
            return connection.execute(sql, (uid, first, last, UNREADABLE_CHUNK_ROWS, reason)).fetchall()

        found: list[int] = []
        while part := await self._database.read(read):
            found += [image_id for _, image_id in part if image_id is not None]
            first = part[-1][0]
        return tuple(found)

    async def unreadable_positions(self, uid: str, version: int) -> npt.NDArray[np.int64]:
        """Return the positions, from 0, of the unreadable images among the first `version` ones."""
        sql = """
            SELECT position FROM unreadable JOIN dataset ON dataset.pk = unreadable.dataset
            WHERE uid = :uid AND position > :after AND position <= :last ORDER BY position LIMIT :most
        """
        rows = await self._all_rows(sql, {"uid": uid, "after": 0, "last": version})
        return np.array([position - 1 for (position,) in rows], np.int64)

    async def _all_rows(self, sql: str, parameters: dict[str, Any]) -> Rows:
        """Return all rows of a query whose first column is above `after`, in several visits to the database thread."""
        found: Rows = []
        while True:
            places = parameters | {"most": LIST_CHUNK_ROWS, "after": found[-1][0] if found else parameters["after"]}
            rows = await self._database.read(partial(_rows_of, sql=sql, parameters=places))
            found += rows
            if len(rows) < LIST_CHUNK_ROWS:
                return found

    async def mark_unreadable(self, uid: str, image_id: int, reason: str, message: str) -> bool:
        """Note that a committed image cannot be decoded. Return False if that was known, or if the data set is gone.

        A reason of `QUARANTINE` replaces any other, because it decides whether the image is decoded again.
        """

        def run(connection: sqlite3.Connection) -> bool:
            sql = """
                INSERT OR IGNORE INTO unreadable (dataset, position, reason, message)
                SELECT dataset, position, ?, ? FROM image JOIN dataset ON dataset.pk = image.dataset
                WHERE uid = ? AND image_id = ?
            """
            fresh = connection.execute(sql, (reason, shortened(message), uid, image_id)).rowcount > 0
            if fresh:
                connection.execute("UPDATE dataset SET num_unreadable = num_unreadable + 1 WHERE uid = ?", (uid,))
                return True
            if reason not in QUARANTINE:
                return False
            sql = """
                UPDATE unreadable SET reason = ?, message = ? WHERE reason != ? AND (dataset, position) IN (
                    SELECT image.dataset, image.position FROM image JOIN dataset ON dataset.pk = image.dataset
                    WHERE uid = ? AND image_id = ?
                )
            """
            return connection.execute(sql, (reason, message, reason, uid, image_id)).rowcount > 0

        return await self._database.write(run)


def _refuse_in_use(connection: sqlite3.Connection, dataset_id: str, uid: str) -> None:
    sql = """
        SELECT train_job_id FROM job
        WHERE dataset_uid = ? AND state NOT IN ('CANCELLED', 'SUCCEEDED', 'FAILED') ORDER BY pk LIMIT 1
    """
    row = connection.execute(sql, (uid,)).fetchone()
    if row is not None:
        message = f"train job {row[0]!r} reads the data set {dataset_id!r}: cancel it first"
        raise FailedPrecondition("DATASET_IN_USE", message, metadata={"train_job": row[0]})


def _rows_of(connection: sqlite3.Connection, sql: str, parameters: dict[str, Any]) -> Rows:
    return connection.execute(sql, parameters).fetchall()


def _part_of(
    connection: sqlite3.Connection, dataset_id: str, wanted: Collection[str], most: int, token: str
) -> ImagePart:
    return images_part(connection, dataset_pk(connection, dataset_id), wanted, most, token)


def _find_in(connection: sqlite3.Connection, dataset_id: str, refs: Sequence[ImageRef]) -> FoundImages:
    pk = dataset_pk(connection, dataset_id)
    return [find(connection, pk, ref) for ref in refs]


def _at_in(connection: sqlite3.Connection, uid: str, positions: Sequence[int]) -> ImageRecords:
    row = connection.execute("SELECT pk FROM dataset WHERE uid = ?", (uid,)).fetchone()
    if row is None:
        raise NotFound("DATASET_NOT_FOUND", "the data set has been deleted")
    return [image_at(connection, row[0], position + 1) for position in positions]
