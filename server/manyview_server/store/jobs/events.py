"""The event logs: one for each job, ordered, and durable before anyone sees it.

Scalars are committed in groups. Other events are committed at once, after the scalars that came before them. Live
readers are served from a short tail in memory, and older events are read in pages. A reader is only a cursor, so a slow
one costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from manyview_server.errors import NotFound, OutOfRange, ResourceExhausted
from manyview_server.store.database.database import Database
from manyview_server.store.event_payloads import Rollback
from manyview_server.store.jobs.event_rows import (
    COLUMNS,
    RARE,
    Pending,
    event_from_row,
    insert,
    job_pk,
    last_kept,
    superseded,
    trim,
    with_scalars,
)
from manyview_server.store.jobs.event_tails import EventTails
from manyview_server.store.records import Event, NewEvent

T = TypeVar("T")

log = logging.getLogger(__name__)

# The time for which scalars wait for others to be committed with, and the pause after the disk refused them.
GROUP_S = 0.1
REFUSED_S = 2.0
# The most scalars of a job that wait while the disk refuses them. Further ones are refused.
MAX_PENDING = 10_000
MAX_EVENTS = 1_000_000
# The events that one visit to the database thread reads.
CHUNK_EVENTS = 5_000


class EventLog:
    """The event logs of all jobs."""

    def __init__(
        self, database: Database, *, max_events: int = MAX_EVENTS, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._max_events = max_events
        self._clock = clock
        self._pending: dict[str, list[Pending]] = {}
        # Scalars whose commit failed. The next commit of the job takes them first, so they keep their place. The
        # database thread writes it, in the order of the commits.
        self._refused: dict[str, list[Pending]] = {}
        self._tails = EventTails(database)
        self._flusher: asyncio.Task[None] | None = None

    async def append(self, train_job_id: str, events: Sequence[NewEvent]) -> None:
        """Log events. Other events than scalars are durable on return. Scalars alone are committed within 100 ms.

        Raises NotFound, and ResourceExhausted DISK_FULL if too many wait for room on the disk.
        """
        pending = self._pending.setdefault(train_job_id, [])
        if len(pending) + len(self._refused.get(train_job_id, ())) + len(events) > MAX_PENDING:
            raise ResourceExhausted("DISK_FULL", "the event log cannot be written", retry_after_s=30.0)
        now = self._clock()
        pending += [(now, event) for event in events]
        if any(event.kind != "scalars" for event in events):
            await self.flush(train_job_id)
        else:
            self._flush_later()

    async def flush(self, train_job_id: str, *, vital: bool = True) -> None:
        """Commit the job's events that wait."""
        await self.record(train_job_id, lambda _connection, _pk: (None, []), vital=vital)

    async def record(
        self,
        train_job_id: str,
        change: Callable[[sqlite3.Connection, int], tuple[T, list[NewEvent]]],
        *,
        vital: bool = True,
    ) -> T:
        """Change the job and log the events that report it, in one transaction, after the scalars that wait.

        `change(connection, job's row)` returns its answer and the events. It must change nothing but rows. Raises
        NotFound.
        """
        loop = asyncio.get_running_loop()
        pending = self._pending.pop(train_job_id, [])

        def run(connection: sqlite3.Connection, waiting: list[Pending]) -> tuple[T, _Committed]:
            pk = job_pk(connection, train_job_id)
            # The scalars came first; `change` may look at the log, so they go in before it runs.
            before = insert(connection, pk, waiting)
            answer, events = change(connection, pk)
            now = self._clock()
            after = insert(connection, pk, [(now, event) for event in events])
            return answer, _Committed(events=before + after, oldest=trim(connection, pk, self._max_events))

        def commit() -> T:
            waiting = self._refused.pop(train_job_id, []) + pending
            try:
                answer, committed = self._database.transact(lambda connection: run(connection, waiting), vital=vital)
            except NotFound:
                raise
            except BaseException:
                # The senders of events other than scalars get the failure.
                if scalars := [(at, event) for at, event in waiting if event.kind == "scalars"]:
                    self._refused[train_job_id] = scalars
                    loop.call_soon_threadsafe(self._flush_later)
                raise
            # Publish from here and not from the coroutine: in the order of the commits, and even if the caller is gone.
            loop.call_soon_threadsafe(self._tails.publish, train_job_id, committed.events, committed.oldest)
            return answer

        return await self._database.call(commit)

    async def check(self, train_job_id: str, after: int) -> int:
        """Return the sequence of the newest event, if the log holds all events after a cursor.

        Raises NotFound, and OutOfRange SEQUENCE_EXPIRED or SEQUENCE_AHEAD. The metadata has the sequences of the oldest
        and the newest event held, as `oldest` and `newest`.
        """
        tail = await self._tails.get(train_job_id)
        held = {"oldest": str(tail.oldest), "newest": str(tail.last)}
        if after < tail.oldest - 1:
            message = f"events up to {tail.oldest - 1} are no longer held, and the cursor is {after}"
            raise OutOfRange("SEQUENCE_EXPIRED", message, metadata=held)
        if after > tail.last:
            message = f"the newest event is {tail.last}, and the cursor is {after}"
            raise OutOfRange("SEQUENCE_AHEAD", message, metadata=held)
        return tail.last

    async def read(self, train_job_id: str, after: int, limit: int) -> list[Event]:
        """Return at most `limit` events after a cursor. Raises what `check` raises."""
        if after == await self.check(train_job_id, after):
            return []
        tail = await self._tails.get(train_job_id)
        if (newest := tail.after(after, limit)) is not None:
            return newest
        sql = f"SELECT {COLUMNS} FROM event WHERE job = ? AND sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?"
        # Read up to `last`: the tail gets the events that are committed but not yet published.
        last, count = tail.last, min(limit, CHUNK_EVENTS)

        def run(connection: sqlite3.Connection) -> list[Event]:
            pk = job_pk(connection, train_job_id)
            return [event_from_row(row) for row in connection.execute(sql, (pk, after, last, count))]

        events = await self._database.read(run)
        if not events or events[0].sequence != after + 1:
            await self.check(train_job_id, after)  # a commit has just dropped what was asked for
        return events

    async def wait(self, train_job_id: str, after: int, timeout_s: float) -> bool:
        """Wait up to `timeout_s` for an event after `after`, and return whether there is one.

        Returns True also if the job is deleted while it waits. The next read then raises NotFound.
        """
        tail = await self._tails.get(train_job_id)
        return tail.last > after or await tail.wait(timeout_s)

    async def last_sequence(self, train_job_id: str) -> int:
        """Return the sequence of the newest event that may be read, or 0."""
        return (await self._tails.get(train_job_id)).last

    async def rollback(self, train_job_id: str, to_step: int, attempt: int) -> Event:
        """Log that a new attempt continues after `to_step`, or from the start (0). Later scalars no longer count."""

        def change(connection: sqlite3.Connection, pk: int) -> tuple[None, list[NewEvent]]:
            rollback = Rollback(to_step=to_step, superseded_after_sequence=last_kept(connection, pk, to_step))
            return None, [NewEvent(payload=rollback, step=to_step, attempt=attempt)]

        def newest(connection: sqlite3.Connection) -> Event:
            sql = f"SELECT {COLUMNS} FROM {RARE} AND job = ? AND kind = 'rollback' ORDER BY sequence DESC LIMIT 1"
            return event_from_row(connection.execute(sql, (job_pk(connection, train_job_id),)).fetchone())

        await self.record(train_job_id, change)
        return await self._database.read(newest)

    async def scalar_rows(
        self, train_job_id: str, names: Collection[str] = (), *, after: int = 0, limit: int | None = None
    ) -> list[Event]:
        """Return the scalars after a cursor, without those that a rollback superseded.

        With `names`, rows hold only these scalars, and rows without any of them are left out.
        """
        wanted = frozenset(names)
        ranges = await self._database.read(lambda c: superseded(c, job_pk(c, train_job_id)))
        rows: list[Event] = []
        while limit is None or len(rows) < limit:
            page = await self.read_scalars(train_job_id, after)
            if not page:
                break
            after = page[-1].sequence
            rows += await asyncio.to_thread(_wanted, page, ranges, wanted)
        return rows if limit is None else rows[:limit]

    async def read_scalars(self, train_job_id: str, after: int) -> list[Event]:
        """Return a page of the scalars after a cursor, superseded ones included."""
        sql = (
            f"SELECT {COLUMNS} FROM event WHERE job = ? AND sequence > ? AND kind = 'scalars' ORDER BY sequence LIMIT ?"
        )
        tail = await self._tails.get(train_job_id)

        def run(connection: sqlite3.Connection) -> list[Event]:
            pk = job_pk(connection, train_job_id)
            return [event_from_row(row) for row in connection.execute(sql, (pk, after, CHUNK_EVENTS))]

        return [event for event in await self._database.read(run) if event.sequence <= tail.last]

    async def tail_logs(self, train_job_id: str, num_lines: int) -> list[Event]:
        """Return the newest log lines and alerts, oldest first."""
        sql = f"SELECT {COLUMNS} FROM {RARE} AND job = ? AND kind IN ('log', 'alert') ORDER BY sequence DESC LIMIT ?"

        def run(connection: sqlite3.Connection) -> list[Event]:
            pk = job_pk(connection, train_job_id)
            return [event_from_row(row) for row in connection.execute(sql, (pk, num_lines))][::-1]

        return await self._database.read(run)

    def forget(self, train_job_id: str) -> None:
        """Forget a deleted job, and wake the readers that wait for it."""
        self._pending.pop(train_job_id, None)
        self._refused.pop(train_job_id, None)
        self._tails.forget(train_job_id)

    async def close(self) -> None:
        """Commit all events that wait."""
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.wait([self._flusher])
        for train_job_id in self._unwritten():
            await self._flush_quietly(train_job_id)

    async def _flush_soon(self) -> None:
        wait_s = GROUP_S
        while self._unwritten():
            await asyncio.sleep(wait_s)
            flushed = [await self._flush_quietly(train_job_id) for train_job_id in self._unwritten()]
            wait_s = GROUP_S if all(flushed) else REFUSED_S
        self._flusher = None

    async def _flush_quietly(self, train_job_id: str) -> bool:
        """Commit the job's events that wait. Return False if they cannot be committed now.

        Drop those of a deleted job.
        """
        try:
            await self.flush(train_job_id, vital=False)
        except NotFound:
            self._pending.pop(train_job_id, None)
        except Exception:
            log.exception("scalars of %s could not be committed", train_job_id)
            return False
        return True

    def _unwritten(self) -> list[str]:
        """Return the jobs that have events waiting to be committed."""
        return list(dict.fromkeys([*list(self._refused), *self._pending]))

    def _flush_later(self) -> None:
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush_soon())


def _wanted(page: Sequence[Event], ranges: Sequence[tuple[int, int]], names: frozenset[str]) -> list[Event]:
    kept = (e for e in page if not any(first < e.sequence < end for first, end in ranges))
    return [row for event in kept if (row := with_scalars(event, names)) is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Committed:
    """The events of a commit, and the oldest event that the log holds after it."""

    events: list[Event]
    oldest: int
