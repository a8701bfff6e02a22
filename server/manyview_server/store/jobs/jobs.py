"""Train jobs: desired and observed state, each transition one transaction with the event that tells of it.

QUEUED -> STARTING -> RUNNING -> SUCCEEDED | FAILED, and STARTING, RUNNING -> RECOVERING -> STARTING. All three that
hold a device may go -> PAUSING -> PAUSED -> QUEUED or -> CANCELLING -> CANCELLED; a QUEUED or PAUSED job gets there at
once. Terminal states are final.
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
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

from manyview_server.errors import AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument
from manyview_server.messages.training import Adoption
from manyview_server.store.database.database import Database, translated_file
from manyview_server.store.deletions import Deletions
from manyview_server.store.durable_files import sync_directory
from manyview_server.store.embeddings.cache import tables_of_job
from manyview_server.store.event_payloads import CheckpointSaved, Log, SnapshotAdopted, StateChange, from_json
from manyview_server.store.images.datasets import dataset_pk, read_dataset
from manyview_server.store.job_states import JobState
from manyview_server.store.jobs import checkpoint_rows, checkpoints
from manyview_server.store.jobs.checkpoints import CheckpointCorrupt
from manyview_server.store.jobs.event_rows import RARE, insert, job_pk
from manyview_server.store.jobs.events import EventLog
from manyview_server.store.jobs.job_rows import SELECT, check_expected, job_of, move, read_job, save_progress
from manyview_server.store.jobs.job_verbs import Verb
from manyview_server.store.records import Checkpoint, Failure, Job, Json, NewEvent, Progress

log = logging.getLogger(__name__)

# A page, and the token of the next one: "" where there is none.
JobPage = tuple[list[Job], str]
Jobs = list[Job]
Checkpoints = list[Checkpoint]
Adoptions = list[Adoption]


class JobStore:
    """The train jobs and their checkpoints' registry."""

    def __init__(
        self,
        database: Database,
        events: EventLog,
        jobs_dir: Path,
        deletions: Deletions,
        clock: Callable[[], float] = time.time,
        *,
        embeddings_dir: Path,
    ) -> None:
        self._database = database
        self._events = events
        self._jobs_dir = jobs_dir
        self._deletions = deletions
        self._embeddings_dir = embeddings_dir
        self._clock = clock
        # Newer than the rows': too frequent for a commit each, and no harm when lost.
        self._progress: dict[str, Progress] = {}

    def checkpoint_directory(self, uid: str) -> Path:
        """Where a job's checkpoints lie."""
        return checkpoint_rows.checkpoint_directory(self._jobs_dir, uid)

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
    ) -> Job:
        """Queue a job over the images that the data set holds now. With an empty id the store chooses one.

        With `min_images` above 0 the job follows the data set: see `adopt`. With a `source` the job begins with a copy
        of that checkpoint: of its own from then on, whatever becomes of the other job.

        Raises AlreadyExists TRAIN_JOB_EXISTS, NotFound DATASET_NOT_FOUND or MODEL_NOT_FOUND, and DataLoss
        CHECKPOINT_CORRUPT.
        """
        uid = uuid.uuid4().hex
        name = train_job_id or f"job-{uid[:12]}"
        first = await self._copy(source, name, uid) if source else None
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
            job = await self._database.write(lambda connection: self._insert(connection, row, first))
        except Exception:
            await asyncio.to_thread(shutil.rmtree, self._jobs_dir / uid, ignore_errors=True)
            raise
        # What was held of a deleted job of this name.
        self._forget(name)
        return job

    def _insert(self, connection: sqlite3.Connection, row: dict[str, Json], first: Checkpoint | None) -> Job:
        dataset = read_dataset(connection, dataset_pk(connection, row["dataset_id"]))
        name = row["train_job_id"]
        if connection.execute("SELECT 1 FROM job WHERE train_job_id = ?", (name,)).fetchone():
            raise AlreadyExists("TRAIN_JOB_EXISTS", f"there is a train job {name!r} already")
        if first is None:
            self._make_directories(row["uid"])
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
        if first:
            checkpoint_rows.add(connection, pk, first)
            save_progress(connection, pk, Progress(step=first.step, epoch=first.epoch))
            text = f"goes on from {row['continued_from']}"
            events.append(NewEvent(payload=Log(level="info", text=text), step=first.step))
        insert(connection, pk, [(now, event) for event in events])
        return read_job(connection, pk, {})

    async def get(self, train_job_id: str) -> Job:
        """The job. Raises NotFound TRAIN_JOB_NOT_FOUND."""
        return await self._database.read(lambda c: read_job(c, job_pk(c, train_job_id), self._progress))

    async def list(self, page_size: int, page_token: str = "", *, max_bytes: int | None = None) -> JobPage:
        """Return jobs, newest first, and the token of the next page.

        A page ends early before its configurations exceed `max_bytes` in all, but it has at least one job.
        """
        sql = "SELECT pk, length(settings) FROM job WHERE pk < ? ORDER BY pk DESC LIMIT ?"
        if page_token and not re.fullmatch(r"[0-9]{1,18}", page_token):
            raise InvalidArgument("PAGE_TOKEN_INVALID", "the page token is not one of this list")
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
        """Remove the job, its events and its checkpoints. Raises FailedPrecondition unless it is terminal."""

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
        """Note what the user wants of the job, and move it there as far as that needs no trainer to stop or start.

        Repeating it changes nothing. Raises FailedPrecondition STATE_CONFLICT where it is too late.
        """

        def change(connection: sqlite3.Connection, pk: int) -> tuple[Job, list[NewEvent]]:
            job = read_job(connection, pk, self._progress)
            to = verb.lead(job)
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
        """Move the job to the state `to`, in one transaction with the event that tells of it and why.

        Raises Aborted STATE_CONFLICT (metadata `state`) where the job is in none of the `expected` states any more.
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
        """Return the job. A terminal job is not held in memory, because its row has everything."""
        if job.terminal:
            self._progress.pop(job.train_job_id, None)
        return job

    async def set_resolved(self, train_job_id: str, settings: Mapping[str, Json]) -> None:
        """Replace the settings by those that the trainer resolved at its start."""
        sql = "UPDATE job SET settings = ? WHERE pk = ?"
        await self._database.write(lambda c: c.execute(sql, (json.dumps(settings), job_pk(c, train_job_id))))

    async def adopt(self, train_job_id: str, adoption: Adoption, *, num_added: int, attempt: int) -> Job:
        """Note that a job that follows its data set goes over to a larger snapshot, with the event that tells of it.

        An attempt that repeats what one before it had adopted tells of it again.
        """

        def change(connection: sqlite3.Connection, pk: int) -> tuple[Job, list[NewEvent]]:
            sql = "UPDATE job SET num_images = max(num_images, ?) WHERE pk = ?"
            connection.execute(sql, (adoption.num_images, pk))
            payload = SnapshotAdopted(num_images=adoption.num_images, num_added=num_added)
            event = NewEvent(payload=payload, step=adoption.step, epoch=adoption.epoch, attempt=attempt)
            return read_job(connection, pk, self._progress), [event]

        return await self._events.record(train_job_id, change)

    async def adoptions(self, train_job_id: str, from_step: int) -> Adoptions:
        """What the job has adopted from this step on, in the order of the log: repeated ones are there again."""
        sql = f"""
            SELECT step, epoch, payload FROM {RARE} AND job = ? AND kind = 'snapshot' AND step >= ? ORDER BY sequence
        """

        def run(connection: sqlite3.Connection) -> Adoptions:
            rows = connection.execute(sql, (job_pk(connection, train_job_id), from_step))
            adopted = ((step, epoch, from_json(SnapshotAdopted, json.loads(text))) for step, epoch, text in rows)
            return [Adoption(step=step, epoch=epoch, num_images=payload.num_images) for step, epoch, payload in adopted]

        return await self._database.read(run)

    def report_progress(self, train_job_id: str, progress: Progress) -> None:
        """How far the job is. Held in memory, and written with its next transition or checkpoint."""
        self._progress[train_job_id] = progress

    async def unfinished(self) -> Jobs:
        """All jobs that are not terminal, the oldest first."""
        sql = f"{SELECT} WHERE state NOT IN ('CANCELLED', 'SUCCEEDED', 'FAILED') ORDER BY pk"
        return await self._database.read(lambda c: [job_of(row, self._progress) for row in c.execute(sql)])

    async def add_checkpoint(
        self,
        train_job_id: str,
        *,
        step: int,
        epoch: int,
        attempt: int,
        directory: str,
        num_bytes: int,
        model: Mapping[str, Json],
    ) -> Checkpoint:
        """Register a checkpoint that is durable under `directory`, with its event: from now on it exists.

        One of the same step from an earlier attempt is replaced.
        """
        name = Path(directory).name
        new = Checkpoint(
            train_job_id=train_job_id,
            step=step,
            epoch=epoch,
            attempt=attempt,
            directory=name,
            num_bytes=num_bytes,
            create_time=self._clock(),
            pinned=False,
            model=dict(model),
        )

        def change(connection: sqlite3.Connection, pk: int) -> tuple[tuple[Checkpoint, str], list[NewEvent]]:
            save_progress(connection, pk, self._progress.get(train_job_id))
            old = checkpoint_rows.add(connection, pk, new)
            if old:
                uid = read_job(connection, pk, {}).uid
                self._deletions.add(connection, self.checkpoint_directory(uid) / old)
            saved = CheckpointSaved(step=step, directory=name, num_bytes=num_bytes)
            event = NewEvent(payload=saved, step=step, epoch=epoch, attempt=attempt)
            added = checkpoint_rows.find(connection, self._jobs_dir, pk, train_job_id, step)
            return (added, old), [event]

        added, old = await self._events.record(train_job_id, change)
        if old:
            await self._deletions.sweep()
        return added

    async def checkpoints(self, train_job_id: str | None = None) -> Checkpoints:
        """A job's checkpoints, or those of all jobs, newest first."""
        if train_job_id is None:
            return await self._database.read(lambda c: checkpoint_rows.of_all_jobs(c, self._jobs_dir))
        return await self._database.read(lambda c: checkpoint_rows.of_job(c, self._jobs_dir, job_pk(c, train_job_id)))

    async def checkpoint(self, train_job_id: str, step: int | None = None) -> Checkpoint:
        """One checkpoint, None for the newest. Raises NotFound TRAIN_JOB_NOT_FOUND or MODEL_NOT_FOUND."""
        return await self._database.read(
            lambda c: checkpoint_rows.find(c, self._jobs_dir, job_pk(c, train_job_id), train_job_id, step)
        )

    async def pin_checkpoint(self, train_job_id: str, step: int) -> None:
        """An answer names this checkpoint: retention should keep it. Nothing happens where it is gone."""
        sql = "UPDATE checkpoint SET pinned = 1 WHERE job = ? AND step = ? AND pinned = 0"
        await self._database.write(lambda c: c.execute(sql, (job_pk(c, train_job_id), step)))

    async def drop_checkpoint(self, train_job_id: str, step: int) -> None:
        """Remove a checkpoint. Raises NotFound."""

        def run(connection: sqlite3.Connection) -> None:
            pk = job_pk(connection, train_job_id)
            directory = checkpoint_rows.find(connection, self._jobs_dir, pk, train_job_id, step).directory
            checkpoint_rows.remove(connection, self._jobs_dir, pk, step)
            self._deletions.add(connection, Path(directory))

        await self._database.write(run, vital=True)
        await self._deletions.sweep()

    async def set_checkpoint_aside(self, train_job_id: str, step: int) -> None:
        """Forget a corrupt checkpoint, whose files stay under another name. Raises NotFound."""

        def run(connection: sqlite3.Connection) -> None:
            pk = job_pk(connection, train_job_id)
            directory = checkpoint_rows.find(connection, self._jobs_dir, pk, train_job_id, step).directory
            checkpoints.set_aside(Path(directory))
            checkpoint_rows.remove(connection, self._jobs_dir, pk, step)

        await self._database.write(run)

    async def _copy(self, source: Checkpoint, name: str, uid: str) -> Checkpoint:
        """A copy of the checkpoint for a job that is not there yet; retention keeps the original meanwhile."""
        await self.pin_checkpoint(source.train_job_id, source.step)
        directory = self.checkpoint_directory(uid) / checkpoints.name(source.step, 0)

        def copy() -> None:
            self._make_directories(uid)
            checkpoints.copy(Path(source.directory), directory)

        try:
            await asyncio.to_thread(copy)
        except Exception as error:
            await asyncio.to_thread(shutil.rmtree, self._jobs_dir / uid, ignore_errors=True)
            if isinstance(error, CheckpointCorrupt):
                log.error("%s cannot be continued: %s", source.name, error)
                raise DataLoss("CHECKPOINT_CORRUPT", f"{source.name} is not what its manifest says") from error
            if isinstance(error, OSError) and (visible := translated_file(error)) is not None:
                raise visible from error
            raise
        return replace(source, train_job_id=name, attempt=0, directory=str(directory), pinned=False)

    def _make_directories(self, uid: str) -> None:
        """Durable before the row is: a checkpoint syncs its own directory and the one above alone."""
        for directory in (self._jobs_dir / uid, self.checkpoint_directory(uid)):
            directory.mkdir(mode=0o700)
            sync_directory(directory.parent)

    def _forget(self, train_job_id: str) -> None:
        self._progress.pop(train_job_id, None)
        self._events.forget(train_job_id)
