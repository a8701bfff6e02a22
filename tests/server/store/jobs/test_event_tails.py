from __future__ import annotations

import asyncio

import pytest

from manyview_server.store.event_payloads import Log
from manyview_server.store.jobs import event_tails
from manyview_server.store.records import NewEvent
from manyview_server.store.store import Store


def line(text: str) -> NewEvent:
    return NewEvent(payload=Log(level="info", text=text))


async def test_tails_that_nobody_waits_for_are_forgotten_beyond_a_number(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_tails, "MAX_IDLE_TAILS", 3)
    await store.datasets.create("a")
    names = [f"j{number}" for number in range(8)]
    for name in names:
        await store.jobs.create(name, "a", "simclr", {}, "0")
    waiting = asyncio.create_task(store.events.wait("j0", 1, timeout_s=5.0))
    for name in names:
        await store.events.append(name, [line("x")] if name != "j0" else [])
        assert await store.events.last_sequence(name) == (2 if name != "j0" else 1)
    assert list(store.events._tails._tails) == ["j0", "j5", "j6", "j7"]
    # A tail that was dropped is loaded again.
    assert [event.sequence for event in await store.events.read("j1", 0, 9)] == [1, 2]
    await store.events.append("j1", [line("y")])
    assert await store.events.last_sequence("j1") == 3
    await store.events.append("j0", [line("news")])
    assert await waiting
