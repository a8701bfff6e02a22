"""Train jobs: what the user wants of each one, and its state.

Each change of state is one transaction with the event that reports it. `job_states` has the graph of the states.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import re
import shutil
import sqlite3
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from manyview_server.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from manyview_server.messages.training import Adoption
from manyview_server.store.database.database import Database
from manyview_server.store.deletions import Deletions
from manyview_server.store.embeddings.cache import tables_of_job
from manyview_server.store.event_payloads import Log, SnapshotAdopted, StateChange, from_json
from manyview_server.store.images.datasets import dataset_pk, read_dataset
from manyview_server.store.job_states import JobState
from manyview_server.store.jobs import checkpoint_rows
from manyview_server.store.jobs.checkpoint_store import CheckpointStore
from manyview_server.store.jobs.event_rows import RARE, insert, job_pk
from manyview_server.store.jobs.events import EventLog
from manyview_server.store.jobs.job_rows import SELECT, check_expected, job_from_row, move, read_job, save_progress
from manyview_server.store.jobs.job_verbs import Verb
from manyview_server.store.records import Checkpoint, Failure, Job, Json, NewEvent, Progress

log = logging.getLogger(__name__)

# A page, and the token of the next page: "" after the last one.
JobPage = tuple[list[Job], str]
Jobs = list[Job]
Adoptions = list[Adoption]


class JobStore:
    """The train jobs of a data directory.

    `progress` is the progress that is newer than the rows. Reports are too frequent for a commit each, and losing the
    last ones does no harm.
    """

    def __init__(
        self,
        database: Database,
        events: EventLog,
        jobs_dir: Path,
        deletions: Deletions,
        checkpoints: CheckpointStore,
        progress: dict[str, Progress],
        clock: Callable[[], float] = time.time,
        *,
        embeddings_dir: Path,
    ) -> None:
        self._database = database
        self._events = events
        self._jobs_dir = jobs_dir
        self._deletions = deletions
        self._embeddings_dir = embeddings_dir
        self._checkpoints = checkpoints
        self._progress = progress
        self._clock = clock

    async def create(
        self,
        train_job_id: str,
        dataset_id: str,
        method: str,
        settings: Mapping[str, Json],
        server_version: str,
        *,
        source: Checkpoint | None = None,
        min_images: int = 0,
        notes: Sequence[str] = (),
    ) -> Job:
        """Queue a job over the images that the data set holds now. For an empty id the store chooses one.

        With `min_images` above 0 the job follows the data set: see `adopt`. With a `source` the job starts from a copy
        of that checkpoint, which belongs to the new job alone. The `notes` are the first lines of the job's log.

        Raises AlreadyExists TRAIN_JOB_EXISTS, NotFound DATASET_NOT_FOUND or MODEL_NOT_FOUND, and DataLoss
        CHECKPOINT_CORRUPT.
        """
        uid = uuid.uuid4().hex
        name = train_job_id or f"job-{uid[:12]}"
        first = await self._checkpoints.copy(source, name, uid) if source else None
        row = {
            "train_job_id": name,
            "uid": uid,
            "dataset_id": dataset_id,
            "method": method,
            "settings": json.dumps(settings),
            "server_version": server_version,
            "continued_from": source.name if source else "",
            "min_images": min_images,
        }
        try:
            job = await self._database.write(lambda connection: self._insert(connection, row, first, notes))
        except Exception:
            await asyncio.to_thread(shutil.rmtree, self._jobs_dir / uid, ignore_errors=True)
            raise
        # A deleted job may have had this name.
        self._forget(name)
        return job

    def _insert(
        self, connection: sqlite3.Connection, row: dict[str, Json], first: Checkpoint | None, notes: Sequence[str]
    ) -> Job:
        dataset = read_dataset(connection, dataset_pk(connection, row["dataset_id"]))
        name = row["train_job_id"]
        if connection.execute("SELECT 1 FROM job WHERE train_job_id = ?", (name,)).fetchone():
            raise AlreadyExists("TRAIN_JOB_EXISTS", f"the train job {name!r} already exists")
        if first is None:
            self._checkpoints.make_directory(row["uid"])
        now = self._clock()
        row |= {
            "dataset_uid": dataset.uid,
            "num_images": 0 if row["min_images"] else dataset.num_images,
            "state": "QUEUED",
            "create_time": now,
        }
        sql = f"INSERT INTO job ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
        pk = connection.execute(sql, tuple(row.values())).lastrowid
        assert pk is not None
        events = [NewEvent(payload=StateChange(from_state="", to_state="QUEUED"))]
        first_step = first.step if first else 0
        events += [NewEvent(payload=Log(level="info", text=note), step=first_step) for note in notes]
        if first:
            checkpoint_rows.add(connection, pk, first)
            save_progress(connection, pk, Progress(step=first.step, epoch=first.epoch))
            text = f"continues from {row['continued_from']}"
            events.append(NewEvent(payload=Log(level="info", text=text), step=first.step))
        insert(connection, pk, [(now, event) for event in events])
        return read_job(connection, pk, {})

    async def get(self, train_job_id: str) -> Job:
        """Return the job. Raises NotFound TRAIN_JOB_NOT_FOUND."""
        return await self._database.read(lambda c: read_job(c, job_pk(c, train_job_id), self._progress))

    async def list(self, page_size: int, page_token: str = "", *, max_bytes: int | None = None) -> JobPage:
        """Return a page of jobs, newest first.

        A page ends early before its configurations together exceed `max_bytes`, but it has at least one job.
        """
        sql = "SELECT pk, length(settings) FROM job WHERE pk < ? ORDER BY pk DESC LIMIT ?"
        if page_token and not re.fullmatch(r"[0-9]{1,18}", page_token):
            raise InvalidArgument("PAGE_TOKEN_INVALID", "the page token does not belong to this list")
        before = int(page_token or 2**62)

        def run(connection: sqlite3.Connection) -> JobPage:
            found = connection.execute(sql, (before, page_size + 1)).fetchall()
            sizes = itertools.accumulate(num_bytes for _, num_bytes in found[:page_size])
            fitting = sum(max_bytes is None or num_bytes <= max_bytes for num_bytes in sizes)
            pks = [pk for pk, _ in found[: max(1, fitting)]]
            jobs = [read_job(connection, pk, self._progress) for pk in pks]
            return jobs, str(pks[-1]) if len(found) > len(pks) else ""

        return await self._database.read(run)

    async def delete(self, train_job_id: str) -> None:
        """Remove the job, its events and its checkpoints. Raises FailedPrecondition if it is not terminal."""

        def run(connection: sqlite3.Connection) -> None:
            pk = job_pk(connection, train_job_id)
            job = read_job(connection, pk, {})
            if not job.terminal:
                message = f"train job {train_job_id!r} is {job.state}: cancel it first"
                raise FailedPrecondition("STATE_CONFLICT", message, metadata={"state": job.state})
            connection.execute("DELETE FROM job WHERE pk = ?", (pk,))
            self._deletions.add(connection, self._jobs_dir / job.uid, job=pk)
            for table in tables_of_job(self._embeddings_dir, job.uid):
                self._deletions.add(connection, table)

        await self._database.write(run, vital=True)
        self._forget(train_job_id)
        await self._deletions.sweep()

    async def request(self, train_job_id: str, verb: Verb) -> Job:
        """Note what the user wants of the job, and change its state as far as no trainer has to start or stop for it.

        Repeating a request changes nothing. Raises FailedPrecondition STATE_CONFLICT if it comes too late.
        """

        def change(connection: sqlite3.Connection, pk: int) -> tuple[Job, list[NewEvent]]:
            job = read_job(connection, pk, self._progress)
            to = verb.next_state(job)
            connection.execute("UPDATE job SET desired = ? WHERE pk = ?", (verb.desired, pk))
            events = []
            if to != job.state:
                reason = Failure(reason=verb.reason, message="")
                save_progress(connection, pk, self._progress.get(train_job_id))
                events.append(move(connection, pk, job, to, self._clock(), reason, None))
            return read_job(connection, pk, self._progress), events

        return self._finished(await self._events.record(train_job_id, change))

    async def transition(
        self,
        train_job_id: str,
        expected: Collection[JobState],
        to: JobState,
        *,
        reason: str = "",
        message: str = "",
        hint: str = "",
        attempt: int | None = None,
        restarts: int | None = None,
    ) -> Job:
        """Move the job to the state `to`, in one transaction with the event that reports it.

        Raises Aborted STATE_CONFLICT (metadata `state`) if the job is no longer in one of the `expected` states.
        """

        def change(connection: sqlite3.Connection, pk: int) -> tuple[Job, list[NewEvent]]:
            job = read_job(connection, pk, self._progress)
            check_expected(job, expected, to)
            save_progress(connection, pk, self._progress.get(train_job_id))
            failure = Failure(reason=reason, message=message, hint=hint)
            event = move(connection, pk, job, to, self._clock(), failure, attempt)
            if restarts is not None:
                connection.execute("UPDATE job SET restarts = ? WHERE pk = ?", (restarts, pk))
            return read_job(connection, pk, self._progress), [event]

        return self._finished(await self._events.record(train_job_id, change))

    def _finished(self, job: Job) -> Job:
        """Return the job. If it is terminal, forget its progress, because its row has everything."""
        if job.terminal:
            self._progress.pop(job.train_job_id, None)
        return job

    async def set_resolved(self, train_job_id: str, settings: Mapping[str, Json]) -> None:
        """Replace the settings by those that the trainer resolved when it started."""
        sql = "UPDATE job SET settings = ? WHERE pk = ?"
        await self._database.write(lambda c: c.execute(sql, (json.dumps(settings), job_pk(c, train_job_id))))

    async def adopt(self, train_job_id: str, adoption: Adoption, *, num_added: int, attempt: int) -> Job:
        """Note that a job that follows its data set adopts a larger snapshot, together with the event that reports it.

        An attempt that repeats an adoption of an earlier attempt logs the event again.
        """

        def change(connection: sqlite3.Connection, pk: int) -> tuple[Job, list[NewEvent]]:
            sql = "UPDATE job SET num_images = max(num_images, ?) WHERE pk = ?"
            connection.execute(sql, (adoption.num_images, pk))
            payload = SnapshotAdopted(num_images=adoption.num_images, num_added=num_added)
            event = NewEvent(payload=payload, step=adoption.step, epoch=adoption.epoch, attempt=attempt)
            return read_job(connection, pk, self._progress), [event]

        return await self._events.record(train_job_id, change)

    async def adoptions(self, train_job_id: str, from_step: int) -> Adoptions:
        """Return the adoptions from this step on, in the order of the log, repeated ones included."""
        sql = f"""
            SELECT step, epoch, payload FROM {RARE} AND job = ? AND kind = 'snapshot' AND step >= ? ORDER BY sequence
        """

        def run(connection: sqlite3.Connection) -> Adoptions:
            rows = connection.execute(sql, (job_pk(connection, train_job_id), from_step))
            adopted = ((step, epoch, from_json(SnapshotAdopted, json.loads(text))) for step, epoch, text in rows)
            return [Adoption(step=step, epoch=epoch, num_images=payload.num_images) for step, epoch, payload in adopted]

        return await self._database.read(run)

    def report_progress(self, train_job_id: str, progress: Progress) -> None:
        """Note how far the job is. It is written with the job's next transition or checkpoint."""
        self._progress[train_job_id] = progress

    async def unfinished(self) -> Jobs:
        """Return all jobs that are not terminal, the oldest first."""
        sql = f"{SELECT} WHERE state NOT IN ('CANCELLED', 'SUCCEEDED', 'FAILED') ORDER BY pk"
        return await self._database.read(lambda c: [job_from_row(row, self._progress) for row in c.execute(sql)])

    def _forget(self, train_job_id: str) -> None:
        self._progress.pop(train_job_id, None)
        self._events.forget(train_job_id)
