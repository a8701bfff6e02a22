"""The registered checkpoints of all jobs. Only a registered checkpoint exists for users.

The files of a checkpoint are durable before its row is committed, and they are removed after the row is.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from manyview_server.errors import DataLoss
from manyview_server.store.database.database import Database, service_error_of_file
from manyview_server.store.deletions import Deletions
from manyview_server.store.durable_files import sync_directory
from manyview_server.store.event_payloads import CheckpointSaved
from manyview_server.store.jobs import checkpoint_rows, checkpoints
from manyview_server.store.jobs.checkpoints import CheckpointCorrupt
from manyview_server.store.jobs.event_rows import job_pk
from manyview_server.store.jobs.events import EventLog
from manyview_server.store.jobs.job_rows import read_job, save_progress
from manyview_server.store.records import Checkpoint, Json, NewEvent, Progress

log = logging.getLogger(__name__)

Checkpoints = list[Checkpoint]


class CheckpointStore:
    """The checkpoints of all jobs. `progress` is the progress of jobs that is newer than their rows."""

    def __init__(
        self,
        database: Database,
        events: EventLog,
        jobs_dir: Path,
        deletions: Deletions,
        progress: Mapping[str, Progress],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._events = events
        self._jobs_dir = jobs_dir
        self._deletions = deletions
        self._progress = progress
        self._clock = clock

    def directory(self, uid: str) -> Path:
        """Return the directory of a job's checkpoints."""
        return checkpoint_rows.checkpoint_directory(self._jobs_dir, uid)

    def make_directory(self, uid: str) -> None:
        """Make the directory of a job's checkpoints, durably.

        Call it before the job's row is committed: a checkpoint only syncs its own directory and the one above.
        """
        for directory in (self._jobs_dir / uid, self.directory(uid)):
            directory.mkdir(mode=0o700)
            sync_directory(directory.parent)

    async def add(
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
        """Register a checkpoint that is durable under `directory`, in one transaction with its event.

        It replaces a checkpoint of the same step from an earlier attempt.
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
            replaced = checkpoint_rows.add(connection, pk, new)
            if replaced:
                uid = read_job(connection, pk, {}).uid
                self._deletions.add(connection, self.directory(uid) / replaced)
            saved = CheckpointSaved(step=step, directory=name, num_bytes=num_bytes)
            event = NewEvent(payload=saved, step=step, epoch=epoch, attempt=attempt)
            added = checkpoint_rows.find(connection, self._jobs_dir, pk, train_job_id, step)
            return (added, replaced), [event]

        added, replaced = await self._events.record(train_job_id, change)
        if replaced:
            await self._deletions.sweep()
        return added

    async def list(self, train_job_id: str | None = None) -> Checkpoints:
        """Return the checkpoints of one job, or of all jobs, newest first."""
        if train_job_id is None:
            return await self._database.read(lambda c: checkpoint_rows.list_all(c, self._jobs_dir))
        return await self._database.read(
            lambda c: checkpoint_rows.list_for_job(c, self._jobs_dir, job_pk(c, train_job_id))
        )

    async def get(self, train_job_id: str, step: int | None = None) -> Checkpoint:
        """Return the checkpoint of `step`, or the newest one for None.

        Raises NotFound TRAIN_JOB_NOT_FOUND or MODEL_NOT_FOUND.
        """
        return await self._database.read(
            lambda c: checkpoint_rows.find(c, self._jobs_dir, job_pk(c, train_job_id), train_job_id, step)
        )

    async def pin(self, train_job_id: str, step: int) -> None:
        """Note that an answer names this checkpoint, so that retention keeps it. Nothing happens if it is gone."""
        sql = "UPDATE checkpoint SET pinned = 1 WHERE job = ? AND step = ? AND pinned = 0"
        await self._database.write(lambda c: c.execute(sql, (job_pk(c, train_job_id), step)))

    async def delete(self, train_job_id: str, step: int) -> None:
        """Remove a checkpoint. Raises NotFound."""

        def run(connection: sqlite3.Connection) -> None:
            pk = job_pk(connection, train_job_id)
            directory = checkpoint_rows.find(connection, self._jobs_dir, pk, train_job_id, step).directory
            checkpoint_rows.remove(connection, self._jobs_dir, pk, step)
            self._deletions.add(connection, Path(directory))

        await self._database.write(run, vital=True)
        await self._deletions.sweep()

    async def set_aside(self, train_job_id: str, step: int) -> None:
        """Remove a corrupt checkpoint from the registry, and keep its files under another name. Raises NotFound."""

        def run(connection: sqlite3.Connection) -> None:
            pk = job_pk(connection, train_job_id)
            directory = checkpoint_rows.find(connection, self._jobs_dir, pk, train_job_id, step).directory
            checkpoints.set_aside(Path(directory))
            checkpoint_rows.remove(connection, self._jobs_dir, pk, step)

        await self._database.write(run)

    async def copy(self, source: Checkpoint, train_job_id: str, uid: str) -> Checkpoint:
        """Copy the files of a checkpoint for a new job, whose row does not exist yet.

        The original is pinned first, so that retention keeps it during the copy. Raises DataLoss CHECKPOINT_CORRUPT.
        """
        await self.pin(source.train_job_id, source.step)
        directory = self.directory(uid) / checkpoints.name(source.step, 0)

        def copy() -> None:
            self.make_directory(uid)
            checkpoints.copy(Path(source.directory), directory)

        try:
            await asyncio.to_thread(copy)
        except Exception as error:
            await asyncio.to_thread(shutil.rmtree, self._jobs_dir / uid, ignore_errors=True)
            if isinstance(error, CheckpointCorrupt):
                log.error("%s cannot be continued: %s", source.name, error)
                raise DataLoss("CHECKPOINT_CORRUPT", f"{source.name} is not what its manifest says") from error
            if isinstance(error, OSError) and (visible := service_error_of_file(error)) is not None:
                raise visible from error
            raise
        return replace(source, train_job_id=train_job_id, attempt=0, directory=str(directory), pinned=False)
