"""One subscriber of a job's events: a cursor, and what it is sent next. A slow subscriber is only a cursor, too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from manyview.v1 import metrics_service_pb2 as pb
from manyview_server.errors import NotFound, Unavailable
from manyview_server.front.convert import job_messages
from manyview_server.front.jobs.subscriptions.event_feed import EventFeed
from manyview_server.front.jobs.subscriptions.event_pages import EventPage, Kinds
from manyview_server.front.jobs.subscriptions.replay_pace import ReplayPace
from manyview_server.store.event_payloads import StateChange
from manyview_server.store.job_states import TERMINAL_STATES
from manyview_server.store.records import Job

Encoded = bytes
"""A SubscribeMetricsResponse as it is sent."""


class Subscription:
    """The messages of one call."""

    def __init__(self, feed: EventFeed, pace: ReplayPace, job: Job, kinds: Kinds, heartbeat_s: float) -> None:
        """`job` was read before the first event is read: later changes of its state are in the log."""
        self._feed = feed
        self._pace = pace
        self._kinds = kinds
        self._heartbeat_s = heartbeat_s
        self._state, self._known = job.state, job.last_sequence
        self._cursor = 0
        self._sent_s = time.monotonic()

    async def messages(self, after: int, *, follow: bool) -> AsyncGenerator[Encoded, None]:
        """Yield the events after a cursor, then with `follow` new ones, heartbeats in between, and the end."""
        self._cursor = after
        try:
            while True:
                if self._feed.replays(self._cursor):
                    turn = self._pace.ask()
                    try:
                        while not await self._came(turn):
                            yield self._heartbeat()
                    finally:
                        turn.cancel()
                if (page := await self._next_page(follow=follow)) is not None:
                    self._pass(page)
                    if page.num_events:
                        self._sent_s = time.monotonic()
                        yield page.message
                    elif self._left_s() <= 0:
                        yield self._heartbeat()
                elif await self._feed.is_complete(self._cursor) and self._state in TERMINAL_STATES:
                    yield self._end(pb.EndOfStream.REASON_JOB_TERMINAL)
                    return
                elif not follow:
                    yield self._end(pb.EndOfStream.REASON_CAUGHT_UP)
                    return
                elif not await self._feed.wait(self._cursor, self._left_s()):
                    yield self._heartbeat()
        except NotFound:
            yield self._end(pb.EndOfStream.REASON_DELETED)
        except Unavailable:
            yield self._end(pb.EndOfStream.REASON_DRAINING)

    async def _next_page(self, *, follow: bool) -> EventPage | None:
        replays = self._feed.replays(self._cursor)
        page = await self._feed.page(self._cursor, self._kinds, follow=follow)
        if page is not None and replays:
            self._pace.used(len(page.message))
        return page

    def _pass(self, page: EventPage) -> None:
        self._cursor = page.cursor
        # The job's record may be newer than these events.
        if page.change is not None and page.change.sequence > self._known:
            assert isinstance(page.change.payload, StateChange)
            self._state = page.change.payload.to_state

    async def _came(self, turn: asyncio.Future[None]) -> bool:
        """Wait for a turn until a heartbeat is due. Return whether it came."""
        if not turn.done():
            await asyncio.wait([turn], timeout=max(0.0, self._left_s()))
        return turn.done()

    def _left_s(self) -> float:
        """Return the seconds until a heartbeat is due."""
        return self._sent_s + self._heartbeat_s - time.monotonic()

    def _heartbeat(self) -> Encoded:
        self._sent_s = time.monotonic()
        return pb.SubscribeMetricsResponse(cursor=self._cursor).SerializeToString()

    def _end(self, reason: pb.EndOfStream.Reason) -> Encoded:
        end = pb.EndOfStream(reason=reason, state=job_messages.state(self._state))
        return pb.SubscribeMetricsResponse(cursor=self._cursor, end=end).SerializeToString()
