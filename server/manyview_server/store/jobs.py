"""Train jobs: desired and observed state, each transition one transaction with the event that tells of it.

QUEUED -> STARTING -> RUNNING -> SUCCEEDED | FAILED; STARTING, RUNNING -> RECOVERING -> STARTING | QUEUED;
QUEUED -> CANCELLED; any other that is not terminal -> CANCELLING -> CANCELLED. Terminal states are final.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from manyview_server.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from manyview_server.store import checkpoint_rows
from manyview_server.store.database import Database
from manyview_server.store.datasets import dataset_pk, read_dataset
from manyview_server.store.event_rows import insert, job_pk
from manyview_server.store.events import EventLog
from manyview_server.store.job_rows import SELECT, check_expected, job_of, move, read_job, save_progress
from manyview_server.store.records import Checkpoint, Failure, Job, Json, NewEvent, Progress
from manyview_server.store.shards import sync_directory
from manyview_server.store.trash import Trash

# A page, and the token of the next one: "" where there is none.
JobPage = tuple[list[Job], str]
Jobs = list[Job]
Checkpoints = list[Checkpoint]


class JobStore:
    """The train jobs and their checkpoints' registry."""

    def __init__(
        self,
        database: Database,
        events: EventLog,
        jobs_dir: Path,
        trash: Trash,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._events = events
        self._jobs_dir = jobs_dir
        self._trash = trash
        self._clock = clock
        # Newer than the rows': too frequent for a commit each, and no harm when lost.
        self._progress: dict[str, Progress] = {}

    def checkpoint_directory(self, uid: str) -> Path:
        """Where a job's checkpoints lie."""
        return checkpoint_rows.checkpoint_directory(self._jobs_dir, uid)

    async def create(
        self, train_job_id: str, dataset_id: str, method: str, settings: Mapping[str, Json], server_version: str
    ) -> Job:
        """Queue a job over the images that the data set holds now. With an empty id the store chooses one.

        Raises AlreadyExists TRAIN_JOB_EXISTS, NotFound DATASET_NOT_FOUND.
        """
        uid = uuid.uuid4().hex
        name = train_job_id or f"job-{uid[:12]}"

        def run(connection: sqlite3.Connection) -> Job:
            dataset = read_dataset(connection, dataset_pk(connection, dataset_id))
            if connection.execute("SELECT 1 FROM job WHERE train_job_id = ?", (name,)).fetchone():
                raise AlreadyExists("TRAIN_JOB_EXISTS", f"there is a train job {name!r} already")
            self._make_directories(uid)
            now = self._clock()
            row = {
                "train_job_id": name,
                "uid": uid,
                "dataset_id": dataset_id,
                "dataset_uid": dataset.uid,
                "num_images": dataset.num_images,
                "method": method,
                "settings": json.dumps(settings),
                "state": "QUEUED",
                "create_time": now,
                "server_version": server_version,
            }
            sql = f"INSERT INTO job ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
            pk = connection.execute(sql, tuple(row.values())).lastrowid
            assert pk is not None
            queued = {"from": "", "to": "QUEUED", "reason": "", "message": ""}
            insert(connection, pk, [(now, NewEvent(kind="state", payload=queued))])
            return read_job(connection, pk, {})

        job = await self._database.write(run)
        # What was held of a deleted job of this name.
        self._forget(name)
        return job

    async def get(self, train_job_id: str) -> Job:
        """The job. Raises NotFound TRAIN_JOB_NOT_FOUND."""
        return await self._database.read(lambda c: read_job(c, job_pk(c, train_job_id), self._progress))

    async def list(self, page_size: int, page_token: str = "") -> JobPage:
        """Jobs, newest first, and the token of the next page."""
        sql = "SELECT pk FROM job WHERE pk < ? ORDER BY pk DESC LIMIT ?"
        if page_token and not re.fullmatch(r"[0-9]{1,18}", page_token):
            raise InvalidArgument("PAGE_TOKEN_INVALID", "the page token is not one of this list")
        before = int(page_token or 2**62)

        def run(connection: sqlite3.Connection) -> JobPage:
            pks = [pk for (pk,) in connection.execute(sql, (before, page_size + 1))]
            jobs = [read_job(connection, pk, self._progress) for pk in pks[:page_size]]
            return jobs, str(pks[page_size - 1]) if len(pks) > page_size else ""

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
            self._trash.put(connection, self._jobs_dir / job.uid, job=pk)

        await self._database.write(run)
        self._forget(train_job_id)
        await self._trash.sweep()

    async def request_cancel(self, train_job_id: str) -> Job:
        """Let the job end: CANCELLED at once while it is queued, else CANCELLING. Repeating it changes nothing.

        Raises FailedPrecondition STATE_CONFLICT where it ended otherwise.
        """

        def change(connection: sqlite3.Connection, pk: int) -> tuple[Job, list[NewEvent]]:
            job = read_job(connection, pk, self._progress)
            if job.state in ("SUCCEEDED", "FAILED"):
                message = f"train job {train_job_id!r} is {job.state} already"
                raise FailedPrecondition("STATE_CONFLICT", message, metadata={"state": job.state})
            connection.execute("UPDATE job SET desired = 'cancel' WHERE pk = ?", (pk,))
            events = []
            if job.state not in ("CANCELLING", "CANCELLED"):
                to = "CANCELLED" if job.state == "QUEUED" else "CANCELLING"
                reason = Failure(reason="CANCEL_REQUESTED", message="")
                events.append(move(connection, pk, job, to, self._clock(), reason, None))
            return read_job(connection, pk, self._progress), events

        return await self._events.record(train_job_id, change)

    async def transition(
        self,
        train_job_id: str,
        expected: Collection[str],
        to: str,
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

        return await self._events.record(train_job_id, change)

    async def set_resolved(self, train_job_id: str, settings: Mapping[str, Json]) -> None:
        """Replace the settings by those that the trainer resolved at its start."""
        sql = "UPDATE job SET settings = ? WHERE pk = ?"
        await self._database.write(lambda c: c.execute(sql, (json.dumps(settings), job_pk(c, train_job_id))))

    def report_progress(self, train_job_id: str, progress: Progress) -> None:
        """How far the job is. Held in memory, and written with its next transition or checkpoint."""
        self._progress[train_job_id] = progress

    async def next_queued(self) -> Job | None:
        """The job that waits for longest."""
        sql = f"{SELECT} WHERE state = 'QUEUED' ORDER BY pk LIMIT 1"

        def run(connection: sqlite3.Connection) -> Job | None:
            row = connection.execute(sql).fetchone()
            return None if row is None else job_of(row, self._progress)

        return await self._database.read(run)

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
                self._trash.put(connection, self.checkpoint_directory(uid) / old)
            payload = {"step": step, "directory": name, "num_bytes": num_bytes}
            event = NewEvent(kind="checkpoint", payload=payload, step=step, epoch=epoch, attempt=attempt)
            added = checkpoint_rows.find(connection, self._jobs_dir, pk, train_job_id, step)
            return (added, old), [event]

        added, old = await self._events.record(train_job_id, change)
        if old:
            await self._trash.sweep()
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
            self._trash.put(connection, Path(directory))

        await self._database.write(run)
        await self._trash.sweep()

    def _make_directories(self, uid: str) -> None:
        """Durable before the row is: a checkpoint syncs its own directory and the one above alone."""
        for directory in (self._jobs_dir / uid, self.checkpoint_directory(uid)):
            directory.mkdir(mode=0o700)
            sync_directory(directory.parent)

    def _forget(self, train_job_id: str) -> None:
        self._progress.pop(train_job_id, None)
        self._events.forget(train_job_id)
