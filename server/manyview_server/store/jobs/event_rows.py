"""The rows of the event log: contiguous sequences, the rows that rollbacks supersede, and the limit of its length."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from manyview_server.errors import NotFound
from manyview_server.store.database.similar_ids import hint
from manyview_server.store.event_payloads import PAYLOADS, Payload, Rollback, Scalars, from_json, to_json
from manyview_server.store.records import Event, NewEvent
from manyview_server.store.text_limit import shortened

COLUMNS = "sequence, time, attempt, step, epoch, kind, payload"

# The index of all events but scalars. SQLite does not see by itself that another kind is not "scalars".
RARE = "event INDEXED BY event_by_kind WHERE kind <> 'scalars'"

# A commit removes this many events beyond those above the limit, and at most so many in all, which is twice the
# most that one commit can add.
TRIM_MORE = 1_000
MAX_TRIM = 20_000

# An event and the time when it came.
Pending = tuple[float, NewEvent]


def job_pk(connection: sqlite3.Connection, train_job_id: str) -> int:
    """Return the primary key of the job's row. Raises NotFound."""
    row = connection.execute("SELECT pk FROM job WHERE train_job_id = ?", (train_job_id,)).fetchone()
    if row is None:
        message = f"no train job {train_job_id!r}{hint(connection, 'job', 'train_job_id', train_job_id)}"
        raise NotFound("TRAIN_JOB_NOT_FOUND", message, metadata={"train_job": train_job_id})
    return int(row[0])


def insert(connection: sqlite3.Connection, pk: int, pending: Sequence[Pending]) -> list[Event]:
    """Give events their sequences and write them, within a transaction.

    The times of a log never decrease. After the clock has jumped back, new events get the time of the newest event
    until the clock has passed it.
    """
    if not pending:
        return []
    sql = """
        SELECT last_sequence, coalesce((SELECT time FROM event WHERE job = job.pk AND sequence = last_sequence), 0)
        FROM job WHERE pk = ?
    """
    last, newest = connection.execute(sql, (pk,)).fetchone()
    times = accumulate((max(at, newest) for at, _ in pending), max)
    events = [
        Event(
            sequence=sequence,
            time=at,
            attempt=new.attempt,
            step=new.step,
            epoch=new.epoch,
            payload=_with_short_texts(new.payload),
        )
        for sequence, (at, (_, new)) in enumerate(zip(times, pending, strict=True), start=last + 1)
    ]
    connection.executemany(
        "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(pk, e.sequence, e.time, e.attempt, e.step, e.epoch, e.kind, json.dumps(to_json(e.payload))) for e in events],
    )
    connection.execute("UPDATE job SET last_sequence = ? WHERE pk = ?", (last + len(events), pk))
    return events


def _with_short_texts(payload: Payload) -> Payload:
    if isinstance(payload, Scalars):
        return payload
    return from_json(type(payload), {name: shortened(value) for name, value in to_json(payload).items()})


def event_from_row(row: tuple[int, float, int, int, int, str, str]) -> Event:
    """Return the event in a row of `COLUMNS`."""
    sequence, at, attempt, step, epoch, kind, payload = row
    typed = from_json(PAYLOADS[kind], json.loads(payload))
    return Event(sequence=sequence, time=at, attempt=attempt, step=step, epoch=epoch, payload=typed)


def with_scalars(event: Event, names: frozenset[str]) -> Event | None:
    """Return the scalars event with only these scalars, or None if it has none of them. No names mean all."""
    if not names:
        return event
    assert isinstance(event.payload, Scalars)
    values = {name: value for name, value in event.payload.values.items() if name in names}
    return replace(event, payload=Scalars(values=values)) if values else None


def superseded(connection: sqlite3.Connection, pk: int) -> list[tuple[int, int]]:
    """Return the ranges of sequences, both ends excluded, whose scalars no longer count."""
    sql = f"SELECT sequence, payload FROM {RARE} AND job = ? AND kind = 'rollback' ORDER BY sequence"
    rows = connection.execute(sql, (pk,)).fetchall()
    rollbacks = ((from_json(Rollback, json.loads(payload)), sequence) for sequence, payload in rows)
    return [(rollback.superseded_after_sequence, sequence) for rollback, sequence in rollbacks]


def last_kept(connection: sqlite3.Connection, pk: int, to_step: int) -> int:
    """Return the sequence of the last event that a rollback to `to_step` keeps.

    It is the event before the first scalars of the steps that are repeated. Scalars that an earlier rollback superseded
    do not count. A rollback to 0, the start, also repeats step 0.
    """
    first = "SELECT min(sequence) FROM event WHERE job = ? AND kind = 'scalars' AND step >= ? AND sequence > ?"
    ranges = superseded(connection, pk)
    step, after = to_step + 1 if to_step else 0, 0
    while True:
        (sequence,) = connection.execute(first, (pk, step, after)).fetchone()
        if sequence is None:
            return int(connection.execute("SELECT last_sequence FROM job WHERE pk = ?", (pk,)).fetchone()[0])
        end = max((end for start, end in ranges if start < sequence < end), default=None)
        if end is None:
            return int(sequence) - 1
        after = end


def trim(connection: sqlite3.Connection, pk: int, max_events: int) -> int:
    """Keep the log within its limit, and return the oldest sequence held.

    Each commit removes only some events, so that no commit holds up the others. It removes more than are above the
    limit, so that not every commit has to remove some.
    """
    sql = "SELECT oldest_sequence, last_sequence FROM job WHERE pk = ?"
    oldest, last = connection.execute(sql, (pk,)).fetchone()
    above = last - oldest + 1 - max_events
    if above <= 0:
        return int(oldest)
    oldest += min(above + min(TRIM_MORE, max_events // 8), MAX_TRIM)
    connection.execute("DELETE FROM event WHERE job = ? AND sequence < ?", (pk, oldest))
    connection.execute("UPDATE job SET oldest_sequence = ? WHERE pk = ?", (oldest, pk))
    return int(oldest)
