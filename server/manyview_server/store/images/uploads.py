"""Uploads in numbered batches, each durable before it is acknowledged, which can be resumed after any crash.

Batches that arrive while others are being written wait, and then form one group: one sync and one commit serve all
sessions.

An upload can create its data set. If none of its images is stored, the finish removes the data set again.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Sequence
from functools import partial

from manyview_server.counted_noun import number_of
from manyview_server.errors import FailedPrecondition, NotFound, ServiceError, Unavailable
from manyview_server.store.database.database import Database
from manyview_server.store.images.batch import Checked, UploadBatch
from manyview_server.store.images.datasets import DatasetStore, dataset_pk, has_dataset, read_dataset
from manyview_server.store.images.group_limit import GroupLimit
from manyview_server.store.images.ingest import Ingest, upload_fenced
from manyview_server.store.records import Dataset, ImageOutcome, Upload

log = logging.getLogger(__name__)

# The limits of one group. They limit how long an event or a query waits for the database thread.
MAX_GROUP_BATCHES = 16
MAX_GROUP_BYTES = 32 << 20
MAX_GROUP_IMAGES = 1_024
"""A group has more only if its first batch has. A row takes about 20 µs."""

COLUMNS = "upload_id, committed_number, num_images, num_stored, num_duplicates, num_rejected, finished, digest"

# The data set, if an upload created it, it is empty, all uploads to it are finished, and no job that is not terminal
# trains on it.
LEFT_EMPTY = """
    SELECT 1 FROM dataset WHERE pk = :pk AND created_by_upload AND num_images = 0
    AND NOT EXISTS (SELECT 1 FROM upload WHERE dataset = :pk AND NOT finished)
    AND NOT EXISTS (
        SELECT 1 FROM job WHERE dataset_uid = dataset.uid AND state NOT IN ('CANCELLED', 'SUCCEEDED', 'FAILED')
    )
"""

Answer = asyncio.Future[list[ImageOutcome]]


def group_limit(*, max_batch_images: int, max_batch_bytes: int) -> GroupLimit:
    """Return the most that a group can hold if batches are no larger than this."""
    return GroupLimit(images=MAX_GROUP_BATCHES * max_batch_images, num_bytes=max(MAX_GROUP_BYTES, max_batch_bytes))


class UploadStore:
    """The uploads of all data sets."""

    def __init__(self, database: Database, ingest: Ingest, datasets: DatasetStore) -> None:
        self._database = database
        self._ingest = ingest
        self._datasets = datasets
        self._queue: deque[tuple[UploadBatch, Answer]] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._indexing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def get(self, dataset_id: str, upload_id: str) -> Upload:
        """Return the state of an upload. Raises NotFound UPLOAD_NOT_FOUND."""

        def run(connection: sqlite3.Connection) -> Upload:
            pk = _upload_pk(connection, dataset_pk(connection, dataset_id), upload_id)
            if pk is None:
                raise NotFound("UPLOAD_NOT_FOUND", f"no upload {upload_id!r} to the data set {dataset_id!r}")
            return _read_upload(connection, dataset_id, pk)

        return await self._database.read(run)

    async def open(
        self, dataset_id: str, upload_id: str, resume_digest: bytes = b"", *, create_dataset: bool = False
    ) -> UploadSession:
        """Start or resume an upload. Appends of an earlier session on it then raise Aborted UPLOAD_FENCED.

        Raises NotFound DATASET_NOT_FOUND unless `create_dataset` is set, and FailedPrecondition UPLOAD_CHANGED if
        `resume_digest` is not empty and not the digest of the committed images.
        """
        fence = asyncio.Event()

        def run(connection: sqlite3.Connection) -> tuple[int, Upload]:
            if create_dataset and not has_dataset(connection, dataset_id):
                self._datasets.insert(connection, dataset_id, created_by_upload=True)
            dataset = dataset_pk(connection, dataset_id)
            pk = _upload_pk(connection, dataset, upload_id)
            if pk is None:
                insert = "INSERT INTO upload (dataset, upload_id) VALUES (?, ?)"
                pk = connection.execute(insert, (dataset, upload_id)).lastrowid
                assert pk is not None
            upload = _read_upload(connection, dataset_id, pk)
            if resume_digest and resume_digest != upload.digest:
                message = f"these are not the images that were acknowledged to {upload_id!r}"
                raise FailedPrecondition("UPLOAD_CHANGED", message)
            return pk, upload

        def take_over() -> tuple[int, Upload, asyncio.Event | None]:
            """Take over on the database thread, after the batches of the earlier session that are queued there."""
            pk, upload = self._database.transact(run)
            # Do this only after the commit. If the commit fails, the earlier session can continue.
            earlier = self._ingest.owners.get(pk)
            self._ingest.owners[pk] = fence
            return pk, upload, earlier

        pk, upload, earlier = await self._database.call(take_over)
        if earlier is not None:
            earlier.set()
        return UploadSession(self, pk, fence, upload)

    async def commit(self, batch: UploadBatch) -> list[ImageOutcome]:
        """Queue a batch for the next group, and wait until it is durable."""
        if self._closed:
            raise Unavailable("DRAINING", "the server is shutting down", retry_after_s=5.0)
        answer: Answer = asyncio.get_running_loop().create_future()
        self._queue.append((batch, answer))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_groups())
        return await answer

    async def finish(
        self, pk: int, fence: asyncio.Event, dataset_id: str, num_images: int
    ) -> tuple[Upload, Dataset | None]:
        """Mark an upload as complete. See `UploadSession.finish`."""

        def run(connection: sqlite3.Connection) -> tuple[Upload, Dataset | None]:
            if connection.execute("SELECT 1 FROM upload WHERE pk = ?", (pk,)).fetchone() is None:
                raise NotFound("DATASET_NOT_FOUND", "the data set was deleted while images were uploaded to it")
            if self._ingest.owners.get(pk) is not fence:
                raise upload_fenced()
            have = _read_upload(connection, dataset_id, pk).num_images
            if have != num_images:
                message = f"the upload has {number_of(have, 'image')}, not {num_images}"
                metadata = {"have": str(have), "want": str(num_images)}
                raise FailedPrecondition("FINISH_MISMATCH", message, metadata=metadata)
            connection.execute("UPDATE upload SET finished = 1 WHERE pk = ?", (pk,))
            upload = _read_upload(connection, dataset_id, pk)
            dataset = dataset_pk(connection, dataset_id)
            if connection.execute(LEFT_EMPTY, {"pk": dataset}).fetchone() is not None:
                self._datasets.remove(connection, dataset)
                return upload, None
            return upload, read_dataset(connection, dataset)

        upload, dataset = await self._database.write(run)
        if dataset is None:
            await self._datasets.sweep()
        return upload, dataset

    async def close(self) -> None:
        """Refuse new batches, and wait for the queued ones."""
        self._closed = True
        if self._writing is not None:
            await self._writing
        for task in self._indexing:
            task.cancel()
        await asyncio.gather(*self._indexing, return_exceptions=True)

    async def _write_groups(self) -> None:
        try:
            while self._queue:
                group = self._next_group()
                try:
                    answers = await self._database.call(partial(self._ingest.commit, [batch for batch, _ in group]))
                except Exception as error:
                    _fail(group, error)
                    continue
                for (_, answer), outcome in zip(group, answers, strict=True):
                    _resolve(answer, outcome)
                while self._ingest.sealing:
                    self._index(self._ingest.sealing.pop())
        finally:
            self._writing = None

    def _index(self, dataset: int) -> None:
        """Write the index files of the shards that were closed, after the answers, and beside the next groups."""
        task = asyncio.create_task(self._datasets.index_sealed_shards(dataset))
        self._indexing.add(task)
        task.add_done_callback(self._indexed)

    def _indexed(self, task: asyncio.Task[None]) -> None:
        self._indexing.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a closed shard could not be indexed: its next reader does it", exc_info=error)

    def _next_group(self) -> list[tuple[UploadBatch, Answer]]:
        group = [self._queue.popleft()]
        num_bytes, num_images = group[0][0].num_bytes, len(group[0][0].images)
        while self._queue and len(group) < MAX_GROUP_BATCHES:
            num_bytes += self._queue[0][0].num_bytes
            num_images += len(self._queue[0][0].images)
            if num_bytes > MAX_GROUP_BYTES or num_images > MAX_GROUP_IMAGES:
                break
            group.append(self._queue.popleft())
        return group


class UploadSession:
    """A stream of batches to an upload, until another session opens the upload."""

    def __init__(self, store: UploadStore, pk: int, fence: asyncio.Event, upload: Upload) -> None:
        """`fence` is set when another session has taken the upload over."""
        self._store = store
        self._pk = pk
        self._fence = fence
        self._unanswered: set[asyncio.Task[list[ImageOutcome]]] = set()
        self.upload = upload

    async def append(self, number: int, images: Sequence[Checked]) -> list[ImageOutcome]:
        """Commit a batch, which is durable on return. A batch that was committed before gets the same answer again.

        It may be called again before it returns, in the order of the numbers, so that the batches of one stream share
        groups too.

        Raises:
            Aborted: SEQUENCE_GAP (metadata `expected`) or UPLOAD_FENCED.
            FailedPrecondition: UPLOAD_FINISHED or UPLOAD_CHANGED.
            ResourceExhausted: DISK_FULL.
            NotFound: the data set was deleted.
        """
        batch = UploadBatch(upload=self._pk, session=self._fence, number=number, images=images)
        work = asyncio.create_task(self._store.commit(batch))
        self._unanswered.add(work)
        work.add_done_callback(self._unanswered.discard)
        # The batch is committed even if the caller goes away.
        return await asyncio.shield(work)

    async def interruption(self) -> ServiceError:
        """Wait until another session opens the upload, and return the error for this one."""
        await self._fence.wait()
        return upload_fenced()

    async def finish(self, num_images: int) -> tuple[Upload, Dataset | None]:
        """Wait for the batches that are being committed, and mark the upload as complete. It may be repeated.

        The data set is None if an upload created it and no image was stored: then it is removed, unless another upload
        to it is open or a job uses it.

        Raises FailedPrecondition FINISH_MISMATCH (metadata `have` and `want`) if the upload has another number of
        images.
        """
        if self._unanswered:
            await asyncio.wait(set(self._unanswered))
        return await self._store.finish(self._pk, self._fence, self.upload.dataset_id, num_images)


def _resolve(answer: Answer, outcome: list[ImageOutcome] | ServiceError) -> None:
    if answer.done():
        return
    if isinstance(outcome, ServiceError):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


def _fail(group: Sequence[tuple[UploadBatch, Answer]], error: Exception) -> None:
    log.warning("a group of %s failed: %s", number_of(len(group), "batch", "batches"), error)
    for _, answer in group:
        if not answer.done():
            answer.set_exception(error)


def _upload_pk(connection: sqlite3.Connection, dataset: int, upload_id: str) -> int | None:
    sql = "SELECT pk FROM upload WHERE dataset = ? AND upload_id = ?"
    row = connection.execute(sql, (dataset, upload_id)).fetchone()
    return None if row is None else int(row[0])


def _read_upload(connection: sqlite3.Connection, dataset_id: str, pk: int) -> Upload:
    row = connection.execute(f"SELECT {COLUMNS} FROM upload WHERE pk = ?", (pk,)).fetchone()
    upload_id, number, images, stored, duplicates, rejected, finished, digest = row
    return Upload(
        dataset_id=dataset_id,
        upload_id=upload_id,
        committed_number=number,
        num_images=images,
        num_stored=stored,
        num_duplicates=duplicates,
        num_rejected=rejected,
        finished=bool(finished),
        digest=digest,
    )
