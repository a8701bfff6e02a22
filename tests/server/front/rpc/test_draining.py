"""The switch that ends waits."""

from __future__ import annotations

import asyncio
import time

import pytest

from manyview_server.errors import Unavailable
from manyview_server.front.rpc import draining as module
from manyview_server.front.rpc.draining import Draining
from manyview_server.system.awake_time import MAX_SLICE_S


async def test_work_passes_until_the_drain_begins() -> None:
    draining = Draining()
    draining.check()
    assert await draining.interrupting(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(KeyError):
        await draining.interrupting(_fail())


async def _fail() -> None:
    raise KeyError("x")


async def test_a_drain_ends_a_wait_and_cancels_its_work() -> None:
    draining = Draining()
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    waiting = asyncio.create_task(draining.interrupting(work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    draining.start()
    with pytest.raises(Unavailable) as caught:
        await waiting
    assert caught.value.reason == "DRAINING"
    assert caught.value.retry_after_s > 0
    async with asyncio.timeout(5):
        await cancelled.wait()
    with pytest.raises(Unavailable):
        draining.check()


async def test_a_cancelled_wait_cancels_its_work() -> None:
    draining = Draining()
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    waiting = asyncio.create_task(draining.interrupting(work()))
    await begun.wait()
    waiting.cancel()
    async with asyncio.timeout(5):
        await ended.wait()


async def test_it_is_quiet_when_the_last_call_has_ended() -> None:
    draining = Draining()
    await draining.until_quiet()
    with draining.open_call():
        with pytest.raises(KeyError), draining.open_call():
            raise KeyError("x")
        waiting = asyncio.create_task(draining.until_quiet())
        await asyncio.sleep(0.01)
        assert not waiting.done()
    async with asyncio.timeout(5):
        await waiting


async def test_who_takes_no_answer_is_waited_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STUCK_S", 0.3)
    draining = Draining()
    with draining.open_call() as call:
        with call.writing():
            await asyncio.sleep(0.5)
            draining.start()
            waiting = asyncio.create_task(draining.until_quiet())
            await asyncio.sleep(0.1)
            assert not waiting.done(), "what it did before the drain is not held against it"
            async with asyncio.timeout(5):
                await waiting
        waiting = asyncio.create_task(draining.until_quiet())
        await asyncio.sleep(0.5)
        assert not waiting.done(), "a call that works is waited for"
    async with asyncio.timeout(5):
        await waiting


async def test_a_client_is_not_taken_for_stuck_because_the_server_slept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STUCK_S", MAX_SLICE_S + 1.0)
    draining = Draining()
    with draining.open_call() as call, call.writing():
        draining.start()
        quiet = asyncio.create_task(draining.until_quiet())
        await asyncio.sleep(0)
        time.sleep(2.0)  # the loop stands, as by SIGSTOP
        await asyncio.sleep(0.1)
        assert not quiet.done()
    async with asyncio.timeout(10):
        await quiet
