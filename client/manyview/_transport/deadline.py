"""Limits on waiting, for a process that may be suspended: a laptop's lid, SIGSTOP, a paused container.

A process that wakes up late finds every limit exceeded, although the answers may have arrived in the meantime. So a
wait that ends late is followed by a short one, in which this process reads what has arrived. Only then does the other
side count as silent. The clock is `time.monotonic`: steps of the wall clock change nothing.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)

LATE_S = 1.0
"""If a wait ends later than this after its limit, the process was suspended or starved during it."""
LATE_READ_S = 5.0
"""The time in which messages that have arrived are read after such a wait."""


class Source(Protocol[T_co]):
    """The part of a queue that this module reads."""

    def get(self, *, timeout: float | None) -> T_co: ...


class Deadline:
    """The end of a period that starts now or has started before. A period of None never ends."""

    def __init__(
        self, timeout_s: float | None, *, began: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._made = clock()
        self._ends = None if timeout_s is None else (self._made if began is None else began) + timeout_s

    def left_s(self) -> float | None:
        """Return the seconds that are left, 0 after the end, None without an end."""
        if self._ends is None:
            return None
        self.extend_if_late()
        return max(0.0, self._ends - self._clock())

    def extend_if_late(self) -> bool:
        """If this is the first call long after the end, allow `LATE_READ_S` more from now on. Returns whether it did
        so."""
        if self._ends is None or self._clock() - max(self._ends, self._made) <= LATE_S:
            return False
        self._ends = self._clock() + LATE_READ_S
        return True


def take(source: Source[T_co], timeout_s: float | None, clock: Callable[[], float] = time.monotonic) -> T_co:
    """Return the next item of a queue. Raises queue.Empty if none came within `timeout_s`, nor, if that wait ended
    late, in the short wait after it."""
    began = clock()
    try:
        return source.get(timeout=timeout_s)
    except queue.Empty:
        if timeout_s is None or clock() - began - timeout_s <= LATE_S:
            raise
    return source.get(timeout=LATE_READ_S)
