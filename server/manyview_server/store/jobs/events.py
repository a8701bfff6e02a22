"""The event log: one for each job, ordered, durable before anyone sees it.

Scalars are committed in groups, other events at once and after the scalars that came before them. Live readers are
served from a short tail in memory; older events are read in pages. A reader is a cursor: a slow one costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from manyview_server.errors import NotFound, OutOfRange, ResourceExhausted
from manyview_server.store.database.database import Database
from manyview_server.store.event_payloads import Rollback
from manyview_server.store.jobs.event_rows import (
    COLUMNS,
    RARE,
    Pending,
    event_of,
    insert,
    job_pk,
    last_kept,
    only,
    superseded,
    trim,
)
from manyview_server.store.records import Event, NewEvent

T = TypeVar("T")

log = logging.getLogger(__name__)

# Scalars wait so long for company, and so long after the disk refused them.
GROUP_S = 0.1
REFUSED_S = 2.0
# Scalars that wait while the disk refuses them; more are refused.
MAX_PENDING = 10_000
TAIL_EVENTS = 1024
MAX_EVENTS = 1_000_000
# Events that one visit to the database thread reads.
CHUNK_EVENTS = 5_000
# The most tails without a waiting reader that stay in memory.
MAX_IDLE_TAILS = 64


@dataclass(slots=True)
class _Tail:
    """What live readers need of a job's log."""

    oldest: int
    last: int
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=TAIL_EVENTS))
    news: asyncio.Event = field(default_factory=asyncio.Event)
    num_waiting: int = 0


class EventLog:
    """The event logs of all jobs."""

    def __init__(
        self, database: Database, *, max_events: int = MAX_EVENTS, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._max_events = max_events
        self._clock = clock
        self._pending: dict[str, list[Pending]] = {}
        # Scalars whose commit failed. The next commit of the job takes them first, so they keep their place. Written on
        # the database thread, in the order of the commits.
        self._refused: dict[str, list[Pending]] = {}
        self._tails: dict[str, _Tail] = {}
        self._flusher: asyncio.Task[None] | None = None

    async def append(self, train_job_id: str, events: Sequence[NewEvent]) -> None:
        """Log events. Scalars alone return at once and are committed within 100 ms; others are durable on return.

        Raises NotFound, and ResourceExhausted DISK_FULL where too many wait for room.
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
        """Commit what waits."""
        await self.record(train_job_id, lambda _connection, _pk: (None, []), vital=vital)

    async def record(
        self,
        train_job_id: str,
        change: Callable[[sqlite3.Connection, int], tuple[T, list[NewEvent]]],
        *,
        vital: bool = True,
    ) -> T:
        """A change of the job and the events that tell of it, in one transaction, after the scalars that wait.

        `change(connection, job's row)` returns its answer and the events, and changes rows alone. Raises NotFound.
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
            # From here and not from the coroutine: in the order of the commits, and even if the caller is gone.
            loop.call_soon_threadsafe(self._publish, train_job_id, committed)
            return answer

        return await self._database.call(commit)

    async def read(self, train_job_id: str, after: int, limit: int) -> list[Event]:
        """The events after a cursor, at most `limit`.

        Raises OutOfRange SEQUENCE_EXPIRED or SEQUENCE_AHEAD, with `oldest` and `newest` in the metadata: the sequences
        of the oldest and of the newest event held.
        """
        tail = await self._tail(train_job_id)
        held = {"oldest": str(tail.oldest), "newest": str(tail.last)}
        if after < tail.oldest - 1:
            message = f"events up to {tail.oldest - 1} are no longer held, and the cursor is {after}"
            raise OutOfRange("SEQUENCE_EXPIRED", message, metadata=held)
        if after > tail.last:
            message = f"the newest event is {tail.last}, and the cursor is {after}"
            raise OutOfRange("SEQUENCE_AHEAD", message, metadata=held)
        if after == tail.last:
            return []
        if tail.events and after + 1 >= tail.events[0].sequence:
            skip = after + 1 - tail.events[0].sequence
            return list(islice(tail.events, skip, skip + limit))
        sql = f"SELECT {COLUMNS} FROM event WHERE job = ? AND sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?"
        # No further than `last`: what is committed but not yet published is left to the tail.
        last, count = tail.last, min(limit, CHUNK_EVENTS)

        def run(connection: sqlite3.Connection) -> list[Event]:
            pk = job_pk(connection, train_job_id)
            return [event_of(row) for row in connection.execute(sql, (pk, after, last, count))]

        return await self._database.read(run)

    async def wait(self, train_job_id: str, after: int, timeout_s: float) -> bool:
        """Whether there is something newer than `after`; waits for it for up to `timeout_s`.

        True also when the job is deleted meanwhile: the next read raises NotFound.
        """
        tail = await self._tail(train_job_id)
        if tail.last > after:
            return True
        tail.num_waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                await tail.news.wait()
        except TimeoutError:
            return False
        finally:
            tail.num_waiting -= 1
        return True

    async def last_sequence(self, train_job_id: str) -> int:
        """The newest event that may be read; 0 for none."""
        return (await self._tail(train_job_id)).last

    async def oldest(self, train_job_id: str) -> int:
        """The oldest event held."""
        return (await self._tail(train_job_id)).oldest

    async def rollback(self, train_job_id: str, to_step: int, attempt: int) -> Event:
        """Log that a new attempt goes on from `to_step`, 0 for the beginning: later scalars no longer count."""

        def change(connection: sqlite3.Connection, pk: int) -> tuple[None, list[NewEvent]]:
            rollback = Rollback(to_step=to_step, superseded_after_sequence=last_kept(connection, pk, to_step))
            return None, [NewEvent(payload=rollback, step=to_step, attempt=attempt)]

        def newest(connection: sqlite3.Connection) -> Event:
            sql = f"SELECT {COLUMNS} FROM {RARE} AND job = ? AND kind = 'rollback' ORDER BY sequence DESC LIMIT 1"
            return event_of(connection.execute(sql, (job_pk(connection, train_job_id),)).fetchone())

        await self.record(train_job_id, change)
        return await self._database.read(newest)

    async def scalar_rows(
        self, train_job_id: str, names: Collection[str] = (), *, after: int = 0, limit: int | None = None
    ) -> list[Event]:
        """The scalars after a cursor, without those that a rollback superseded.

        With `names`, rows hold only these scalars, and those that have none of them are left out.
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
        """One page of the scalars after a cursor, superseded ones too."""
        sql = (
            f"SELECT {COLUMNS} FROM event WHERE job = ? AND sequence > ? AND kind = 'scalars' ORDER BY sequence LIMIT ?"
        )
        tail = await self._tail(train_job_id)

        def run(connection: sqlite3.Connection) -> list[Event]:
            pk = job_pk(connection, train_job_id)
            return [event_of(row) for row in connection.execute(sql, (pk, after, CHUNK_EVENTS))]

        return [event for event in await self._database.read(run) if event.sequence <= tail.last]

    async def tail_logs(self, train_job_id: str, num_lines: int) -> list[Event]:
        """The newest log lines and alerts, oldest first."""
        sql = f"SELECT {COLUMNS} FROM {RARE} AND job = ? AND kind IN ('log', 'alert') ORDER BY sequence DESC LIMIT ?"

        def run(connection: sqlite3.Connection) -> list[Event]:
            pk = job_pk(connection, train_job_id)
            return [event_of(row) for row in connection.execute(sql, (pk, num_lines))][::-1]

        return await self._database.read(run)

    def forget(self, train_job_id: str) -> None:
        """The job was deleted: wake those who wait for it."""
        self._pending.pop(train_job_id, None)
        self._refused.pop(train_job_id, None)
        tail = self._tails.pop(train_job_id, None)
        if tail is not None:
            tail.news.set()

    async def close(self) -> None:
        """Commit what waits."""
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
        """Scalars of a job that is gone are dropped; where the disk is full, they wait for the next round: False."""
        try:
            await self.flush(train_job_id, vital=False)
        except NotFound:
            self._pending.pop(train_job_id, None)
        except Exception:
            log.exception("scalars of %s could not be committed", train_job_id)
            return False
        return True

    def _publish(self, train_job_id: str, committed: _Committed) -> None:
        tail = self._tails.get(train_job_id)
        if tail is None or not committed.events:
            return
        tail.oldest = committed.oldest
        for event in committed.events:
            # A tail that was loaded after this commit has it already.
            if event.sequence == tail.last + 1:
                tail.events.append(event)
                tail.last = event.sequence
        # Those who wait have the old event in hand; later ones wait for the next news.
        tail.news.set()
        tail.news = asyncio.Event()

    def _unwritten(self) -> list[str]:
        """Return the jobs that have events waiting to be committed."""
        return list(dict.fromkeys([*list(self._refused), *self._pending]))

    def _flush_later(self) -> None:
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush_soon())

    async def _tail(self, train_job_id: str) -> _Tail:
        if (tail := self._tails.pop(train_job_id, None)) is not None:
            # Move it to the end: the first one is the least recently used.
            self._tails[train_job_id] = tail
            return tail
        sql = "SELECT oldest_sequence, last_sequence FROM job WHERE pk = ?"
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[_Tail] = loop.create_future()

        def place(oldest: int, last: int) -> None:
            loaded.set_result(self._tails.setdefault(train_job_id, _Tail(oldest, last)))
            self._drop_idle_tails()

        def run(connection: sqlite3.Connection) -> None:
            row = connection.execute(sql, (job_pk(connection, train_job_id),)).fetchone()
            # Placed by the loop in turn with the commits: none of those that follow is missed.
            loop.call_soon_threadsafe(place, *row)

        await self._database.read(run)
        return await loaded

    def _drop_idle_tails(self) -> None:
        """Forget the least recently used of the tails that nobody waits for. They can be loaded again."""
        idle = [train_job_id for train_job_id, tail in self._tails.items() if not tail.num_waiting]
        for train_job_id in idle[: max(0, len(idle) - MAX_IDLE_TAILS)]:
            del self._tails[train_job_id]


def _wanted(page: Sequence[Event], ranges: Sequence[tuple[int, int]], names: frozenset[str]) -> list[Event]:
    kept = (e for e in page if not any(first < e.sequence < end for first, end in ranges))
    return [row for event in kept if (row := only(event, names)) is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Committed:
    events: list[Event]
    oldest: int
