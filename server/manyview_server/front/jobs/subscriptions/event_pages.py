"""Encoded pages of an event log, shared by all subscribers that stand at the same place of it.

Pages end at fixed sequences, so subscribers that started at different places soon read the same ones. A page is
converted and encoded once. It stays in memory while there is room, and is made again from the log after that.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from manyview.v1 import metrics_service_pb2 as pb
from manyview_server.front.convert import job_messages
from manyview_server.store.event_payloads import StateChange
from manyview_server.store.jobs.events import EventLog
from manyview_server.store.records import Event

PAGE_EVENTS = 256
"""A page ends at the latest at the next multiple of this sequence."""
PAGE_BYTES = 128 << 10
"""The approximate size of a message. A subscriber that does not read makes the server hold one copy of it."""
CACHE_BYTES = 16 << 20
ENTRY_BYTES = 500
"""The memory of a page beside its message."""

Kinds = frozenset[str]
Key = tuple[str, int, Kinds]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """The events after a cursor, as the bytes of a SubscribeMetricsResponse."""

    message: bytes
    num_events: int
    cursor: int
    """The last event that the page covers. It may be of a kind that was not asked for."""
    change: Event | None
    """The newest change of the job's state in it, whatever was asked for."""


def encoded(job_id: str, events: Sequence[Event], kinds: Kinds) -> EventPage:
    """Encode events, one or more, until the message is large enough. Events of other kinds than `kinds` only move the
    cursor; an empty `kinds` means all."""
    assert events
    message, num_bytes, change = pb.SubscribeMetricsResponse(), 0, None
    for event in events:
        message.cursor = event.sequence
        if isinstance(event.payload, StateChange):
            change = event
        if kinds and event.kind not in kinds:
            continue
        converted = job_messages.event(job_id, event)
        message.events.append(converted)
        num_bytes += converted.ByteSize()
        if num_bytes >= PAGE_BYTES:
            break
    data = message.SerializeToString()
    return EventPage(message=data, num_events=len(message.events), cursor=message.cursor, change=change)


class EventPages:
    """The pages of all logs that are in memory. On the event loop only."""

    def __init__(self, events: EventLog, *, max_bytes: int = CACHE_BYTES) -> None:
        self._events = events
        self._max_bytes = max_bytes
        self._pages: OrderedDict[Key, EventPage] = OrderedDict()
        self._num_bytes = 0
        self._being_made: dict[Key, asyncio.Future[None]] = {}

    async def get(self, job_id: str, after: int, upto: int, kinds: Kinds) -> EventPage:
        """Return the page after a cursor. If it must be made, it does not reach beyond `upto`, which is above `after`.

        Subscribers that want the same page at the same time wait for one of them. Raises NotFound and OutOfRange.
        """
        key = (job_id, after, kinds)
        while (page := self._pages.get(key)) is None:
            if (other := self._being_made.get(key)) is None:
                return await self._make(key, upto)
            await asyncio.wait([other])
        self._pages.move_to_end(key)
        return page

    def holds(self, job_id: str, after: int, kinds: Kinds) -> bool:
        """Return whether the page after this cursor need not be made."""
        return (job_id, after, kinds) in self._pages

    def forget(self, job_id: str) -> None:
        """Drop the pages of a job that nobody follows, or that was deleted."""
        for key in [key for key in self._pages if key[0] == job_id]:
            self._drop(key)

    async def _make(self, key: Key, upto: int) -> EventPage:
        job_id, after, kinds = key
        made = self._being_made[key] = asyncio.get_running_loop().create_future()
        try:
            end = min(upto, after - after % PAGE_EVENTS + PAGE_EVENTS)
            events = await self._events.read(job_id, after, end - after)
            page = encoded(job_id, events, kinds)
            self._keep(key, page)
            return page
        finally:
            # Whoever waits looks again. If this caller was cancelled or failed, the next one makes the page.
            del self._being_made[key]
            made.set_result(None)

    def _keep(self, key: Key, page: EventPage) -> None:
        self._pages[key] = page
        self._num_bytes += len(page.message) + ENTRY_BYTES
        while self._num_bytes > self._max_bytes:
            self._drop(next(iter(self._pages)))

    def _drop(self, key: Key) -> None:
        self._num_bytes -= len(self._pages.pop(key).message) + ENTRY_BYTES
