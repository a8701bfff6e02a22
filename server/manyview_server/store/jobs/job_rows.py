"""The row of a job in the database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from manyview_server.errors import Aborted
from manyview_server.store.event_payloads import StateChange
from manyview_server.store.job_states import NEXT_STATES, TERMINAL_STATES, JobState
from manyview_server.store.records import Failure, Job, NewEvent, Progress
from manyview_server.store.text_limit import shortened

# The columns that `Job` has under the same names.
PLAIN_COLUMNS = (
    *("train_job_id", "uid", "dataset_id", "dataset_uid", "num_images", "method", "state", "desired", "create_time"),
    *("start_time", "end_time", "attempt", "restarts", "last_sequence", "latest_checkpoint", "server_version"),
    *("continued_from", "min_images"),
)
SELECT = f"""
    SELECT settings, failure, progress,
        CASE WHEN state = 'QUEUED'
            THEN (SELECT count(*) FROM job AS other WHERE other.state = 'QUEUED' AND other.pk < job.pk) ELSE 0 END,
        CASE WHEN state = 'QUEUED' AND min_images > 0
            THEN (SELECT dataset.num_images FROM dataset WHERE dataset.uid = job.dataset_uid) ELSE 0 END,
        {", ".join(PLAIN_COLUMNS)}
    FROM job
"""


def job_from_row(row: tuple[Any, ...], progress: Mapping[str, Progress]) -> Job:
    """Return the record of a row of `SELECT`. `progress` holds progress that is newer than the row's."""
    settings, failure, saved, queue_position, num_available, *plain = row
    columns = dict(zip(PLAIN_COLUMNS, plain, strict=True))
    return Job(
        settings=json.loads(settings),
        failure=Failure(**json.loads(failure)) if failure else None,
        progress=progress.get(columns["train_job_id"]) or Progress(**json.loads(saved)),
        queue_position=queue_position,
        num_available=num_available or 0,  # the data set may be gone
        **columns,
    )


def read_job(connection: sqlite3.Connection, pk: int, progress: Mapping[str, Progress]) -> Job:
    """Return the job in row `pk`."""
    return job_from_row(connection.execute(f"{SELECT} WHERE pk = ?", (pk,)).fetchone(), progress)


def save_progress(connection: sqlite3.Connection, pk: int, progress: Progress | None) -> None:
    """Write the progress that was reported, if any."""
    if progress is not None:
        columns = asdict(progress)
        del columns["activity"]
        connection.execute("UPDATE job SET progress = ? WHERE pk = ?", (json.dumps(columns), pk))


def check_expected(job: Job, expected: Collection[JobState], to: JobState) -> None:
    """Raise Aborted STATE_CONFLICT if the job is in none of the states that the caller expects."""
    if job.state not in expected:
        message = f"train job {job.train_job_id!r} is {job.state}, not {' or '.join(sorted(expected))}"
        raise Aborted("STATE_CONFLICT", message, metadata={"state": job.state})
    if to not in NEXT_STATES[job.state]:
        raise ValueError(f"a job cannot go from {job.state} to {to}")


def move(
    connection: sqlite3.Connection, pk: int, job: Job, to: JobState, now: float, failure: Failure, attempt: int | None
) -> NewEvent:
    """Write the new state, and return the event that reports it."""
    attempt = job.attempt if attempt is None else attempt
    now = max(now, job.create_time, job.start_time)  # the clock may have jumped back since the job started
    start_time = now if to == "STARTING" and not job.start_time else job.start_time
    end_time = now if to in TERMINAL_STATES else 0.0
    texts = {name: shortened(value) for name, value in asdict(failure).items()}
    text = json.dumps(texts) if to == "FAILED" else ""
    sql = "UPDATE job SET state = ?, failure = ?, attempt = ?, start_time = ?, end_time = ? WHERE pk = ?"
    connection.execute(sql, (to, text, attempt, start_time, end_time, pk))
    change = StateChange(from_state=job.state, to_state=to, reason=failure.reason, message=failure.message)
    return NewEvent(payload=change, step=job.progress.step, epoch=job.progress.epoch, attempt=attempt)
