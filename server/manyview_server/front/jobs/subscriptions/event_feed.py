"""The feed of a job: one reader waits for its events and releases them in groups to everybody who follows.

A message costs a stream about 65 µs of processor time, whatever is in it. So the reader pauses after each group, for
longer the more subscribers there are: a few get each commit at once, and 500 get the events of 150 ms together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from manyview_server.front.jobs.subscriptions.event_pages import EventPage, EventPages, Kinds
from manyview_server.front.rpc.draining import Draining
from manyview_server.store.jobs.events import EventLog

PAUSE_S = 300e-6
"""The pause after a group for each subscriber that follows."""
MAX_PAUSE_S = 0.15
"""The longest pause. It bounds how late an event is."""
POLL_S = 3600.0
FAR_BEHIND = 512
"""A subscriber that lacks more events than this replays: it waits for its turn."""


class EventFeed:
    """The events of one job that were released. On the event loop only."""

    def __init__(self, job_id: str, shown: int, events: EventLog, pages: EventPages, draining: Draining) -> None:
        """`shown`: the newest event that the first subscriber may read."""
        self._job_id = job_id
        self._shown = shown
        self._events = events
        self._pages = pages
        self._draining = draining
        self._waiting: dict[asyncio.Future[bool], int] = {}
        self.num_subscribers = 0
        self.end: BaseException | None = None
        """Why nothing is released any more: the job was deleted, or the server shuts down."""

    async def page(self, after: int, kinds: Kinds, *, follow: bool = True) -> EventPage | None:
        """Return a page of the events after a cursor, or None if none of them is released.

        Without `follow`, every event that is committed counts as released. Raises NotFound, OutOfRange and Unavailable.
        """
        if self.end is not None:
            raise self.end
        newest = await self._events.check(self._job_id, after)
        upto = self._shown if follow else newest
        return await self._pages.get(self._job_id, after, upto, kinds) if after < upto else None

    def replays(self, after: int) -> bool:
        """Return whether a subscriber with this cursor is far behind."""
        return self._shown - after > FAR_BEHIND

    async def is_complete(self, cursor: int) -> bool:
        """Return whether the log has no event after a cursor. Raises NotFound."""
        return await self._events.last_sequence(self._job_id) <= cursor

    async def wait(self, after: int, timeout_s: float) -> bool:
        """Wait up to `timeout_s` until an event after a cursor is released. Return whether it was.

        Returns True also when the job is deleted or the server shuts down. The next page then raises it.
        """
        if self.end is not None or self._shown > after:
            return True
        loop = asyncio.get_running_loop()
        news: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(timeout_s, _set, news, False)
        self._waiting[news] = after
        try:
            return await news
        finally:
            timer.cancel()
            self._waiting.pop(news, None)

    def start(self) -> None:
        """Start the reader."""
        self._reader = asyncio.create_task(self._read())

    def stop(self) -> None:
        """Stop the reader: nobody is subscribed any more."""
        self._reader.cancel()

    async def _read(self) -> None:
        """Release what is committed, until the job is deleted or the server shuts down."""
        try:
            while True:
                if await self._draining.interrupting(self._events.wait(self._job_id, self._shown, POLL_S)):
                    self._shown = max(self._shown, await self._events.last_sequence(self._job_id))
                    self._wake()
                    await asyncio.sleep(min(MAX_PAUSE_S, PAUSE_S * self.num_subscribers))
        except Exception as error:
            self.end = error
            self._wake()

    def _wake(self) -> None:
        for news, after in self._waiting.items():
            if self.end is not None or self._shown > after:
                _set(news, True)


class EventFeeds:
    """The feeds of the jobs that somebody reads."""

    def __init__(self, events: EventLog, draining: Draining) -> None:
        self._events = events
        self._draining = draining
        self._pages = EventPages(events)
        self._feeds: dict[str, EventFeed] = {}

    @asynccontextmanager
    async def subscribed(self, job_id: str) -> AsyncIterator[EventFeed]:
        """The job's feed, which lives as long as somebody is subscribed. Raises NotFound."""
        shown = await self._events.last_sequence(job_id)
        feed = self._feeds.get(job_id)
        if feed is None or feed.end is not None:
            # The pages of a job that was deleted are not those of the next one with its name.
            self._pages.forget(job_id)
            feed = self._feeds[job_id] = EventFeed(job_id, shown, self._events, self._pages, self._draining)
            feed.start()
        feed.num_subscribers += 1
        try:
            yield feed
        finally:
            feed.num_subscribers -= 1
            if not feed.num_subscribers:
                feed.stop()
                if self._feeds.get(job_id) is feed:
                    del self._feeds[job_id]
                    self._pages.forget(job_id)


def _set(news: asyncio.Future[bool], value: bool) -> None:
    if not news.done():
        news.set_result(value)
