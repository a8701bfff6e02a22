"""Report callbacks that block the event loop. While one runs, no caller is answered, not even a health check.

Each callback of the loop is timed where asyncio runs it. A thread wakes every 50 ms; when it finds a callback that has
run for too long, it logs the loop's stack, and the callback's end logs how long it took.

How long a callback held the loop is the larger of two times, so that neither a suspension nor a busy machine looks like
a long callback:

- the processor time that the loop's thread spent in it, which also covers C code that does not give up the interpreter
  lock, during which this module's thread cannot run;
- the time in which this module's thread was awake while the callback ran, which also covers a callback that sleeps or
  waits for the disk. A tick counts as at most twice its planned length, because a process that was stopped wakes up
  to one long tick.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

THRESHOLD_S = 0.25
TICK_S = 0.05
QUIET_S = 10.0
"""The least time between two callbacks that are logged. The callbacks in between are counted."""
RECORD_S = 0.05
"""A new longest callback is logged at once if it takes longer than this and half as long again as the last one that was
logged. So the log names it even if the server is killed."""

# asyncio has no public hook for this. Its debug mode is the only other way, and it slows every task down.
HANDLE: Any = asyncio.Handle

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopCallback:
    """One callback, and how long it held the loop."""

    callback: str = "none"
    held_s: float = 0.0
    cpu_s: float = 0.0
    """Processor time of the loop's thread. A busy machine does not lengthen it."""


class LoopWatchdog:
    """Watches the event loop of the thread that calls `start`."""

    def __init__(self, threshold_s: float = THRESHOLD_S) -> None:
        self._threshold_s = threshold_s
        self.longest = LoopCallback()
        """The callback that held the loop longest."""
        self.hardest = LoopCallback()
        """The callback that took the most processor time."""
        self._awake_s = 0.0
        self._last_tick = 0.0
        self._current: asyncio.Handle | None = None
        self._since = 0.0
        self._awake_since_s = 0.0
        self._logged_handle: asyncio.Handle | None = None
        self._not_before = 0.0
        self._num_not_logged = 0
        self._logged_longest_s = 0.0
        self._stopped = threading.Event()
        self._run: Callable[[asyncio.Handle], None] | None = None

    def start(self) -> None:
        """Start to watch the running loop. Call it on the loop's thread, once."""
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._last_tick = time.monotonic()
        self._run = original = HANDLE._run

        def timed(handle: Any) -> None:
            if handle._loop is not self._loop:
                original(handle)
                return
            cpu_s = time.thread_time()
            self._since, self._awake_since_s = time.monotonic(), self._awake()
            self._current = handle
            try:
                original(handle)
            finally:
                self._current = None
                self._ended(handle, time.monotonic() - self._since, time.thread_time() - cpu_s)

        HANDLE._run = timed
        self._thread = threading.Thread(target=self._watch, name="loop-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the watch, and log the longest callback."""
        if self._run is None:
            return
        HANDLE._run = self._run
        self._run = None
        self._stopped.set()
        self._thread.join()
        self._log_longest()

    def reset(self) -> None:
        """Forget the longest callback so far."""
        self.longest = self.hardest = LoopCallback()

    def _ended(self, handle: asyncio.Handle, wall_s: float, cpu_s: float) -> None:
        awake_s = self._awake() - self._awake_since_s
        held_s = wall_s if wall_s < self._threshold_s else max(cpu_s, min(awake_s, wall_s))
        if cpu_s > self.hardest.cpu_s:
            self.hardest = LoopCallback(callback=_name(handle), held_s=held_s, cpu_s=cpu_s)
        if held_s > self.longest.held_s:
            self.longest = LoopCallback(callback=_name(handle), held_s=held_s, cpu_s=cpu_s)
            if held_s > max(RECORD_S, 1.5 * self._logged_longest_s):
                self._log_longest()
        if held_s >= self._threshold_s:
            self._log_end(handle, held_s, cpu_s)

    def _log_end(self, handle: asyncio.Handle, held_s: float, cpu_s: float) -> None:
        if handle is not self._logged_handle:
            if time.monotonic() < self._not_before:
                self._num_not_logged += 1
                return
            # The callback ended before the thread could look, so there is no stack.
            self._take_turn()
        log.warning(
            "a callback held the event loop for %.2f s (%.2f s of processor time): %s", held_s, cpu_s, _name(handle)
        )

    def _watch(self) -> None:
        while not self._stopped.wait(TICK_S):
            # Set both at once, because the loop's thread reads them.
            self._awake_s, self._last_tick = self._awake(), time.monotonic()
            self._look()

    def _awake(self) -> float:
        """Return for how long the watchdog's thread has been awake."""
        return self._awake_s + min(time.monotonic() - self._last_tick, 2 * TICK_S)

    def _look(self) -> None:
        handle, awake_since_s = self._current, self._awake_since_s
        if handle is None or handle is self._logged_handle or self._awake() - awake_since_s < self._threshold_s:
            return
        frame = sys._current_frames().get(self._thread_id)
        if frame is None or self._current is not handle or time.monotonic() < self._not_before:
            return
        self._logged_handle = handle
        num_not_logged, self._num_not_logged = self._num_not_logged, 0
        self._take_turn()
        log.warning(
            "a callback has held the event loop for %.2f s: %s",
            self._awake() - awake_since_s,
            _name(handle),
            extra={"stack": _stack(frame), "not_logged_before": num_not_logged},
        )

    def _take_turn(self) -> None:
        self._not_before = time.monotonic() + QUIET_S

    def _log_longest(self) -> None:
        held = self.longest
        self._logged_longest_s = held.held_s
        log.info(
            "longest callback of the event loop: %.0f ms (%.0f ms of processor time) in %s",
            1000 * held.held_s,
            1000 * held.cpu_s,
            held.callback,
        )


def _stack(frame: FrameType) -> str:
    """Format the frames of the callback alone, the newest last."""
    whole = traceback.extract_stack(frame)
    own = next((at + 1 for at, entry in enumerate(whole) if entry.name == "timed" and entry.filename == __file__), 0)
    return "".join(traceback.format_list(whole[own + 1 :] if own else whole))


def _name(handle: asyncio.Handle) -> str:
    """Name the task's coroutine, or the function that is called back."""
    callback: Any = getattr(handle, "_callback", None)
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        callback = owner.get_coro()
    return str(getattr(callback, "__qualname__", None) or repr(callback))
