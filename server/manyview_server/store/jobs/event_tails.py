"""The newest events of each job that somebody reads, kept in memory.

Live readers are served from here, without the database. A tail is loaded when a job is first read, and then follows the
commits in their order.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from manyview_server.store.database.database import Database
from manyview_server.store.jobs.event_rows import job_pk
from manyview_server.store.records import Event

TAIL_EVENTS = 1024
# The most tails without a waiting reader that stay in memory.
MAX_IDLE_TAILS = 64


@dataclass(slots=True)
class EventTail:
    """The newest events of a job, and the sequences of the oldest and the newest event of its whole log."""

    oldest: int
    last: int
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=TAIL_EVENTS))
    news: asyncio.Event = field(default_factory=asyncio.Event)
    num_waiting: int = 0

    def after(self, sequence: int, limit: int) -> list[Event] | None:
        """Return at most `limit` events after `sequence`, or None if the tail does not reach back so far."""
        if not self.events or sequence + 1 < self.events[0].sequence:
            return None
        skip = sequence + 1 - self.events[0].sequence
        return list(islice(self.events, skip, skip + limit))

    async def wait(self, timeout_s: float) -> bool:
        """Wait for newer events or for the job's deletion. Return False if neither comes within `timeout_s`."""
        self.num_waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                await self.news.wait()
        except TimeoutError:
            return False
        finally:
            self.num_waiting -= 1
        return True

    def wake(self) -> None:
        """Wake the readers that wait now. Later ones wait for the next events."""
        self.news.set()
        self.news = asyncio.Event()


class EventTails:
    """The tails of all jobs. On the event loop only."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tails: dict[str, EventTail] = {}

    async def get(self, train_job_id: str) -> EventTail:
        """Return the job's tail, and load it if necessary. Raises NotFound."""
        if (tail := self._tails.pop(train_job_id, None)) is not None:
            # Move it to the end: the first one is the least recently used.
            self._tails[train_job_id] = tail
            return tail
        sql = "SELECT oldest_sequence, last_sequence FROM job WHERE pk = ?"
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[EventTail] = loop.create_future()

        def place(oldest: int, last: int) -> None:
            loaded.set_result(self._tails.setdefault(train_job_id, EventTail(oldest, last)))
            self._drop_idle()

        def run(connection: sqlite3.Connection) -> None:
            row = connection.execute(sql, (job_pk(connection, train_job_id),)).fetchone()
            # The loop places the tail in turn with the commits, so that it misses none of the following ones.
            loop.call_soon_threadsafe(place, *row)

        await self._database.read(run)
        return await loaded

    def publish(self, train_job_id: str, events: Sequence[Event], oldest: int) -> None:
        """Add committed events to the job's tail, if it has one, and wake its readers."""
        tail = self._tails.get(train_job_id)
        if tail is None or not events:
            return
        tail.oldest = oldest
        for event in events:
            # A tail that was loaded after this commit has the event already.
            if event.sequence == tail.last + 1:
                tail.events.append(event)
                tail.last = event.sequence
        tail.wake()

    def forget(self, train_job_id: str) -> None:
        """Drop the tail of a deleted job, and wake its readers."""
        tail = self._tails.pop(train_job_id, None)
        if tail is not None:
            # It stays set: a reader that has this tail but does not wait yet must not wait either.
            tail.news.set()

    def _drop_idle(self) -> None:
        """Drop the least recently used of the tails without a waiting reader. They can be loaded again."""
        idle = [train_job_id for train_job_id, tail in self._tails.items() if not tail.num_waiting]
        for train_job_id in idle[: max(0, len(idle) - MAX_IDLE_TAILS)]:
            del self._tails[train_job_id]
