"""The time for which an event loop was awake, and timers that count it.

A watchdog must not count time in which nobody could have answered: the machine slept, the processes were stopped, or
one callback held the loop. The clock of a loop is read often, and each reading counts at most `MAX_SLICE_S`, so that a
suspension of any length counts as less than a second. Before a timer that is due fires, the loop
reads its sockets a few more times, so that a message which is waiting there counts as having come in time.

Deadlines of callers are not watchdogs: they follow the caller's clock, and `asyncio.timeout` is right for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import AsyncIterator, Callable

TICK_S = 0.25
MAX_SLICE_S = 0.5
# Turns of the loop from the end of a wait to its verdict: one reads the socket, one wakes the task that waits for the
# message. The others are for messages that take more than one read.
LAST_TURNS = 8

_clocks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AwakeClock] = weakref.WeakKeyDictionary()


class AwakeClock:
    """Counts the seconds for which one loop was awake, from its construction until the loop ends. Call it to read
    it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._counted_s = 0.0
        self._read_at = now()
        self._tick(weakref.ref(loop))

    def __call__(self) -> float:
        """Return the seconds so far."""
        now = self._now()
        self._counted_s += min(max(0.0, now - self._read_at), MAX_SLICE_S)
        self._read_at = now
        return self._counted_s

    def _tick(self, loop: weakref.ref[asyncio.AbstractEventLoop]) -> None:
        self()
        if (running := loop()) is not None:
            running.call_later(TICK_S, self._tick, loop)


def clock() -> AwakeClock:
    """Return the clock of the running loop."""
    loop = asyncio.get_running_loop()
    if loop not in _clocks:
        _clocks[loop] = AwakeClock(loop)
    return _clocks[loop]


def now() -> float:
    """Return the time of the running loop's clock. Only differences mean something."""
    return clock()()


class AwakeTimer:
    """Calls `fire` once the loop has been awake for `limit_s`, unless `cancel` is called first."""

    def __init__(self, limit_s: float, fire: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock()
        self._fire = fire
        self._ends = self._clock() + limit_s
        self._handle: asyncio.Handle = self._loop.call_soon(self._look, LAST_TURNS)

    @property
    def left_s(self) -> float:
        """Return the seconds that are left; 0 or less when the time is over."""
        return self._ends - self._clock()

    def cancel(self) -> None:
        """Do not fire any more."""
        self._handle.cancel()

    def _look(self, turns: int) -> None:
        if (left_s := self.left_s) > 0:
            self._handle = self._loop.call_later(left_s, self._look, LAST_TURNS)
        elif turns:
            self._handle = self._loop.call_soon(self._look, turns - 1)
        else:
            self._fire()


@contextlib.asynccontextmanager
async def timeout(limit_s: float) -> AsyncIterator[None]:
    """Raise TimeoutError if the block takes longer than `limit_s` of the time for which the loop is awake."""
    async with asyncio.timeout(None) as until:
        timer = AwakeTimer(limit_s, lambda: until.reschedule(0.0))
        try:
            yield
        finally:
            timer.cancel()
