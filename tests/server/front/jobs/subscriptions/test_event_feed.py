from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from manyview_server.errors import NotFound, Unavailable
from manyview_server.front.jobs.subscriptions.event_feed import FAR_BEHIND, MAX_PAUSE_S, PAUSE_S, EventFeed, EventFeeds
from manyview_server.front.rpc.draining import Draining
from manyview_server.store.event_payloads import Log
from manyview_server.store.jobs.job_verbs import CANCEL
from manyview_server.store.records import NewEvent
from manyview_server.store.store import Store

ALL: frozenset[str] = frozenset()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path / "data")
    await opened.datasets.create("shirts")
    await opened.jobs.create("j", "shirts", "simclr", {}, "1")
    yield opened
    await opened.close()


@pytest.fixture
def draining() -> Draining:
    return Draining()


@pytest.fixture
def feeds(store: Store, draining: Draining) -> EventFeeds:
    return EventFeeds(store.events, draining)


async def log_line(store: Store) -> int:
    await store.events.append("j", [NewEvent(payload=Log(level="info", text="x"))])
    return await store.events.last_sequence("j")


async def next_cursor(feed: EventFeed, after: int) -> int:
    """Wait for the next group of events, and return its last one."""
    assert await feed.wait(after, 5.0)
    page = await feed.page(after, ALL)
    assert page is not None
    return page.cursor


async def test_events_are_released_at_once_to_a_few_and_in_groups_to_many(store: Store, feeds: EventFeeds) -> None:
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        feed = await stack.enter_async_context(feeds.subscribed("j"))
        cursor = await store.events.last_sequence("j")
        for _ in range(3):
            newest = await log_line(store)
            began = loop.time()
            assert await next_cursor(feed, cursor) == newest
            assert loop.time() - began < MAX_PAUSE_S
            cursor = newest
        for _ in range(round(MAX_PAUSE_S / PAUSE_S) + 100):
            assert await stack.enter_async_context(feeds.subscribed("j")) is feed
        cursor = await next_cursor(feed, cursor if await log_line(store) else 0)
        began = loop.time()
        newest = [await log_line(store) for _ in range(3)][-1]
        assert await feed.page(cursor, ALL) is None
        assert not await feed.is_complete(cursor)
        assert await next_cursor(feed, cursor) == newest
        assert 0.5 * MAX_PAUSE_S < loop.time() - began < 10 * MAX_PAUSE_S


async def test_one_reader_waits_for_all_subscribers(
    store: Store, feeds: EventFeeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, wait = [], store.events.wait

    async def counted(job_id: str, after: int, timeout_s: float) -> bool:
        waits.append(after)
        return await wait(job_id, after, timeout_s)

    monkeypatch.setattr(store.events, "wait", counted)
    async with AsyncExitStack() as stack:
        every = [await stack.enter_async_context(feeds.subscribed("j")) for _ in range(100)]
        cursor = await store.events.last_sequence("j")
        waiting = [asyncio.create_task(next_cursor(feed, cursor)) for feed in every]
        await asyncio.sleep(0.01)
        newest = await log_line(store)
        assert set(await asyncio.gather(*waiting)) == {newest}
        await asyncio.sleep(2 * 100 * PAUSE_S)
    assert waits == [cursor, newest]
    assert not feeds._feeds


async def test_a_wait_without_news_ends_in_time_and_leaves_nothing_behind(feeds: EventFeeds, store: Store) -> None:
    async with feeds.subscribed("j") as feed:
        assert not await feed.wait(await store.events.last_sequence("j"), 0.01)
        waiting = asyncio.create_task(feed.wait(await store.events.last_sequence("j"), 5.0))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert not feed._waiting


async def test_a_dump_gets_what_is_committed_although_it_is_not_released(feeds: EventFeeds, store: Store) -> None:
    async with feeds.subscribed("j") as feed:
        cursor = await store.events.last_sequence("j")
        newest = await log_line(store)
        page = await feed.page(cursor, ALL, follow=False)
        assert page is not None
        assert page.cursor == newest


async def test_a_subscriber_that_lacks_many_events_replays(feeds: EventFeeds, store: Store) -> None:
    events = [NewEvent(payload=Log(level="info", text="x"))] * (FAR_BEHIND + 1)
    await store.events.append("j", events)
    async with feeds.subscribed("j") as feed:
        newest = await store.events.last_sequence("j")
        assert feed.replays(0)
        assert not feed.replays(newest - FAR_BEHIND)


async def test_the_deletion_of_the_job_ends_its_feed_and_a_job_of_the_same_name_gets_a_new_one(
    feeds: EventFeeds, store: Store
) -> None:
    async with feeds.subscribed("j") as feed:
        cursor = await store.events.last_sequence("j")
        waiting = asyncio.create_task(feed.wait(cursor + 100, 5.0))
        await store.jobs.request("j", CANCEL)
        await asyncio.sleep(0.05)
        await store.jobs.delete("j")
        assert await waiting
        with pytest.raises(NotFound):
            await feed.page(1, ALL)
        await store.jobs.create("j", "shirts", "simclr", {}, "2")
        async with feeds.subscribed("j") as other:
            assert other is not feed
            newest = await log_line(store)
            assert await next_cursor(other, newest - 1) == newest
        with pytest.raises(NotFound):
            await feed.page(1, ALL)
    assert not feeds._feeds


async def test_a_drain_ends_every_wait(feeds: EventFeeds, store: Store, draining: Draining) -> None:
    async with feeds.subscribed("j") as feed:
        cursor = await store.events.last_sequence("j")
        waiting = [asyncio.create_task(feed.wait(cursor, 60.0)) for _ in range(3)]
        await asyncio.sleep(0.01)
        draining.start()
        assert await asyncio.gather(*waiting) == [True] * 3
        with pytest.raises(Unavailable):
            await feed.page(cursor, ALL)
