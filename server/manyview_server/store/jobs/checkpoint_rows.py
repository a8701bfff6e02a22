"""The rows of registered checkpoints. `checkpoints` has their files.

A row has only the name of the directory, so that a data directory can be moved.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from manyview_server.errors import NotFound
from manyview_server.store.records import Checkpoint

SELECT = """
    SELECT train_job_id, uid, step, epoch, checkpoint.attempt, directory, num_bytes, checkpoint.create_time, pinned,
        model
    FROM checkpoint JOIN job ON job.pk = checkpoint.job
"""
# The newest attempt continued from the newest good checkpoint.
NEWEST_FIRST = "ORDER BY checkpoint.attempt DESC, step DESC"
MAX_SHOWN_STEPS = 5


def checkpoint_directory(jobs_dir: Path, uid: str) -> Path:
    """Return the directory of a job's checkpoints."""
    return jobs_dir / uid / "checkpoints"


def add(connection: sqlite3.Connection, pk: int, new: Checkpoint) -> str:
    """Insert a checkpoint and make it the job's latest. Return the name of the directory that it replaces, or ""."""
    sql = "SELECT directory, pinned FROM checkpoint WHERE job = ? AND step = ?"
    old, pinned = connection.execute(sql, (pk, new.step)).fetchone() or ("", 0)
    name = Path(new.directory).name
    connection.execute(
        "INSERT OR REPLACE INTO checkpoint VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (pk, new.step, new.epoch, new.attempt, name, new.num_bytes, new.create_time, pinned, json.dumps(new.model)),
    )
    connection.execute("UPDATE job SET latest_checkpoint = ?, restarts = 0 WHERE pk = ?", (new.step, pk))
    return "" if old == name else str(old)


def newest(connection: sqlite3.Connection, jobs_dir: Path, pk: int) -> Checkpoint | None:
    """Return the job's newest checkpoint."""
    row = connection.execute(f"{SELECT} WHERE job = ? {NEWEST_FIRST} LIMIT 1", (pk,)).fetchone()
    return None if row is None else _checkpoint(jobs_dir, row)


def find(connection: sqlite3.Connection, jobs_dir: Path, pk: int, train_job_id: str, step: int | None) -> Checkpoint:
    """Return the job's checkpoint of `step`, or the newest for None. Raises NotFound MODEL_NOT_FOUND."""
    if step is None:
        found = newest(connection, jobs_dir, pk)
    else:
        row = connection.execute(f"{SELECT} WHERE job = ? AND step = ?", (pk, step)).fetchone()
        found = None if row is None else _checkpoint(jobs_dir, row)
    if found is None:
        what = "no checkpoint yet" if step is None else f"no checkpoint of step {step}{_steps(connection, pk)}"
        raise NotFound(
            "MODEL_NOT_FOUND", f"train job {train_job_id!r} has {what}", metadata={"train_job": train_job_id}
        )
    return found


def _steps(connection: sqlite3.Connection, pk: int) -> str:
    """Return the newest steps that a job has checkpoints of, for the end of a message."""
    steps = [
        str(row[0]) for row in connection.execute("SELECT step FROM checkpoint WHERE job = ? ORDER BY step", (pk,))
    ]
    return f"; there are those of {', '.join(steps[-MAX_SHOWN_STEPS:])}" if steps else ""


def list_for_job(connection: sqlite3.Connection, jobs_dir: Path, pk: int) -> list[Checkpoint]:
    """Return the job's checkpoints, newest first."""
    return [_checkpoint(jobs_dir, row) for row in connection.execute(f"{SELECT} WHERE job = ? {NEWEST_FIRST}", (pk,))]


def list_all(connection: sqlite3.Connection, jobs_dir: Path) -> list[Checkpoint]:
    """Return the checkpoints of all jobs, newest first."""
    sql = f"{SELECT} ORDER BY checkpoint.create_time DESC, job DESC, step DESC"
    return [_checkpoint(jobs_dir, row) for row in connection.execute(sql)]


def remove(connection: sqlite3.Connection, jobs_dir: Path, pk: int, step: int) -> None:
    """Delete a row. The newest checkpoint that is left becomes the job's latest."""
    connection.execute("DELETE FROM checkpoint WHERE job = ? AND step = ?", (pk, step))
    left = newest(connection, jobs_dir, pk)
    connection.execute("UPDATE job SET latest_checkpoint = ? WHERE pk = ?", (-1 if left is None else left.step, pk))


def _checkpoint(jobs_dir: Path, row: tuple[str, str, int, int, int, str, int, float, int, str]) -> Checkpoint:
    train_job_id, uid, step, epoch, attempt, name, num_bytes, create_time, pinned, model = row
    return Checkpoint(
        train_job_id=train_job_id,
        step=step,
        epoch=epoch,
        attempt=attempt,
        directory=str(checkpoint_directory(jobs_dir, uid) / name),
        num_bytes=num_bytes,
        create_time=create_time,
        pinned=bool(pinned),
        model=json.loads(model),
    )
