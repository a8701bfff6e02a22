from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from manyview.v1 import metrics_service_pb2 as pb
from manyview_server.front.jobs.subscriptions import event_pages
from manyview_server.front.jobs.subscriptions.event_pages import PAGE_BYTES, PAGE_EVENTS, EventPages, encoded
from manyview_server.store.event_payloads import Log, Scalars, StateChange
from manyview_server.store.records import Event, NewEvent
from manyview_server.store.store import Store

ALL: frozenset[str] = frozenset()
NUM_EVENTS = 3 * PAGE_EVENTS + 10


class CountedLog:
    """A log that counts how often it is read, and may fail or wait once."""

    def __init__(self, store: Store) -> None:
        self._events = store.events
        self.reads: list[int] = []
        self.gate: asyncio.Event | None = None
        self.failures: list[Exception] = []

    async def read(self, job_id: str, after: int, limit: int) -> list[Event]:
        self.reads.append(after)
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop()
        return await self._events.read(job_id, after, limit)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Any]:
    """The log of a job with a few pages of events."""
    store = Store.open(tmp_path / "data")
    await store.datasets.create("shirts")
    await store.jobs.create("j", "shirts", "simclr", {}, "1")
    events = [NewEvent(payload=Scalars(values={"loss": 1.0}), step=step) for step in range(NUM_EVENTS - 1)]
    await store.events.append("j", events)
    await store.events.flush("j")
    yield CountedLog(store)
    await store.close()


def message(data: bytes) -> pb.SubscribeMetricsResponse:
    return pb.SubscribeMetricsResponse.FromString(data)


async def walk(pages: EventPages, after: int) -> list[int]:
    """The sequences from a cursor to the end of the log."""
    found = []
    while after < NUM_EVENTS:
        page = await pages.get("j", after, NUM_EVENTS, ALL)
        found += [event.sequence for event in message(page.message).events]
        assert page.cursor == found[-1] == message(page.message).cursor
        after = page.cursor
    return found


@pytest.mark.parametrize("after", [0, 1, PAGE_EVENTS - 1, PAGE_EVENTS, 300, NUM_EVENTS - 1])
async def test_pages_hold_every_event_after_a_cursor_once_and_in_order(log: CountedLog, after: int) -> None:
    assert await walk(EventPages(log), after) == list(range(after + 1, NUM_EVENTS + 1))  # type: ignore[arg-type]


async def test_subscribers_that_started_at_different_places_read_the_same_pages(log: CountedLog) -> None:
    pages = EventPages(log)  # type: ignore[arg-type]
    await walk(pages, 0)
    log.reads.clear()
    await walk(pages, 100)
    await walk(pages, 0)
    assert log.reads == [100]


async def test_a_page_that_many_want_at_once_is_made_once(log: CountedLog) -> None:
    pages = EventPages(log)  # type: ignore[arg-type]
    log.gate = asyncio.Event()
    asking = [asyncio.create_task(pages.get("j", 0, NUM_EVENTS, ALL)) for _ in range(50)]
    await asyncio.sleep(0.01)
    log.gate.set()
    found = await asyncio.gather(*asking)
    assert log.reads == [0]
    assert all(page is found[0] for page in found)


async def test_a_subscriber_that_leaves_or_fails_while_it_makes_a_page_leaves_the_work_to_the_next(
    log: CountedLog,
) -> None:
    pages = EventPages(log)  # type: ignore[arg-type]
    log.gate = asyncio.Event()
    asking = [asyncio.create_task(pages.get("j", 0, NUM_EVENTS, ALL)) for _ in range(3)]
    await asyncio.sleep(0.01)
    asking[0].cancel()
    await asyncio.sleep(0.01)
    assert log.reads == [0, 0]
    log.failures.append(ValueError("broken"))
    log.gate.set()
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert [type(result).__name__ for result in results[1:]] == ["ValueError", "EventPage"]


async def test_a_page_that_is_made_ends_where_it_is_told(log: CountedLog) -> None:
    page = await EventPages(log).get("j", 3, 5, ALL)  # type: ignore[arg-type]
    assert [event.sequence for event in message(page.message).events] == [4, 5]


async def test_the_memory_of_pages_is_bounded_and_the_ones_in_use_stay(log: CountedLog) -> None:
    first = len((await EventPages(log).get("j", 0, NUM_EVENTS, ALL)).message) + event_pages.ENTRY_BYTES  # type: ignore[arg-type]
    pages = EventPages(log, max_bytes=2 * first + 100)  # type: ignore[arg-type]
    await walk(pages, 0)
    held = [after for after in range(NUM_EVENTS) if pages.holds("j", after, ALL)]
    assert held == [2 * PAGE_EVENTS, 3 * PAGE_EVENTS]
    pages.forget("j")
    assert not pages.holds("j", held[0], ALL)
    assert pages._num_bytes == 0


def line(sequence: int, text: str) -> Event:
    return Event(sequence=sequence, time=1.0, attempt=1, step=1, epoch=0, payload=Log(level="info", text=text))


def test_long_log_lines_are_split_over_messages() -> None:
    lines, found = [line(number, "x" * 40_000) for number in range(1, 11)], []
    while lines:
        page = encoded("j", lines, ALL)
        assert len(page.message) < 2 * PAGE_BYTES
        found += [event.sequence for event in message(page.message).events]
        lines = lines[page.num_events :]
    assert found == list(range(1, 11))


def test_events_that_were_not_asked_for_only_move_the_cursor_and_a_change_of_the_state_is_noted() -> None:
    state = StateChange(from_state="QUEUED", to_state="STARTING")
    change = Event(sequence=2, time=1.0, attempt=1, step=1, epoch=0, payload=state)
    page = encoded("j", [line(1, "one"), change, line(3, "three")], frozenset({"scalars"}))
    assert (page.num_events, page.cursor, page.change) == (0, 3, change)
    assert message(page.message) == pb.SubscribeMetricsResponse(cursor=3)
