"""Only the time for which the loop was awake is counted, and what waits in a socket is read before the verdict."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
import weakref

import pytest

from manyview_server.link.blocking import Link
from manyview_server.link.streams import AsyncLink
from manyview_server.messages.training import LogWritten
from manyview_server.system import awake_time
from manyview_server.system.awake_time import MAX_SLICE_S, AwakeClock, AwakeTimer

SAID = LogWritten(step=1, epoch=0, level="info", text="still here")


class Now:
    """A clock that stands still unless it is moved."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


async def test_a_clock_counts_what_passes_between_its_ticks() -> None:
    now = Now()
    clock = AwakeClock(asyncio.get_running_loop(), now)
    for _ in range(8):
        now.seconds += 0.25
        clock()
    assert clock() == pytest.approx(2.0)


async def test_a_suspension_counts_as_one_slice_however_long_it_was() -> None:
    now = Now()
    clock = AwakeClock(asyncio.get_running_loop(), now)
    now.seconds += 3600.0
    assert clock() == pytest.approx(MAX_SLICE_S)


async def test_a_clock_that_jumps_back_counts_nothing() -> None:
    now = Now()
    clock = AwakeClock(asyncio.get_running_loop(), now)
    now.seconds -= 3600.0
    assert clock() == 0.0
    now.seconds += 0.25
    assert clock() == pytest.approx(0.25)


async def test_a_timer_fires_when_its_time_is_over_and_not_after_it_was_cancelled() -> None:
    fired: list[str] = []
    AwakeTimer(0.05, lambda: fired.append("kept"))
    AwakeTimer(0.05, lambda: fired.append("cancelled")).cancel()
    async with asyncio.timeout(10):
        while not fired:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert fired == ["kept"]


async def test_a_timeout_ends_a_block_that_takes_too_long() -> None:
    with pytest.raises(TimeoutError):
        async with awake_time.timeout(0.05):
            await asyncio.Event().wait()


async def test_a_timeout_of_nothing_lets_what_is_there_pass() -> None:
    done = asyncio.get_running_loop().create_future()
    done.set_result("there")
    async with awake_time.timeout(0.0):
        assert await done == "there"


async def test_a_loop_that_sleeps_beyond_the_limit_reads_the_message_that_came_meanwhile() -> None:
    ours, theirs = socket.socketpair()
    link, worker = await AsyncLink.over(ours), Link(theirs)
    try:
        async with awake_time.timeout(MAX_SLICE_S + 0.1):
            heard = asyncio.create_task(link.receive())
            await asyncio.sleep(0)
            worker.send(SAID)
            time.sleep(2.0)  # the loop is stopped, as by SIGSTOP
            assert await heard == SAID
    finally:
        link.close()
        worker.close()


async def test_a_message_that_waits_when_the_time_is_over_is_read_before_the_verdict() -> None:
    ours, theirs = socket.socketpair()
    link, worker = await AsyncLink.over(ours), Link(theirs)
    try:
        async with awake_time.timeout(0.2):
            heard = asyncio.create_task(link.receive())
            await asyncio.sleep(0)
            worker.send(SAID)
            time.sleep(0.4)  # less than a slice: the time is over when the loop continues
            assert await heard == SAID
    finally:
        link.close()
        worker.close()


async def test_a_loop_that_sleeps_beyond_the_limit_still_gives_the_other_end_its_time() -> None:
    ours, theirs = socket.socketpair()
    link, worker = await AsyncLink.over(ours), Link(theirs)
    loop = asyncio.get_running_loop()
    try:
        async with awake_time.timeout(MAX_SLICE_S + 1.0):
            heard = asyncio.create_task(link.receive())
            await asyncio.sleep(0)
            loop.call_later(2.1, worker.send, SAID)
            time.sleep(2.0)  # both ends are stopped, and nothing was said before
            assert await heard == SAID
    finally:
        link.close()
        worker.close()


def test_a_clock_goes_with_its_loop() -> None:
    async def read() -> weakref.ref[AwakeClock]:
        awake_time.now()
        return weakref.ref(awake_time.clock())

    clock = asyncio.run(read())
    gc.collect()
    assert clock() is None
