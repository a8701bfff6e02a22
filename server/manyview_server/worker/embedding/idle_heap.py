"""The heap of an idle embedder, which goes back to the system.

Workers keep the memory that they have freed, because fresh pages for each batch cost a fifth of its time. An embedder
lives on after its last request, and would hold what its largest batches took.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable

IDLE_S = 20.0
"""The time without a request after which freed memory is given back."""


def trim() -> None:
    """Give all freed pages back to the system, where the C library can do that."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


class IdleHeap:
    """Trims the heap once after each time of work. `start` starts its thread."""

    def __init__(self, *, idle_s: float = IDLE_S, trim: Callable[[], None] = trim) -> None:
        self._idle_s = idle_s
        self._trim = trim
        self._used = threading.Event()
        self._used_at = 0.0

    def start(self) -> None:
        """Start to wait for the end of work."""
        threading.Thread(target=self._run, name="idle-heap", daemon=True).start()

    def used(self) -> None:
        """Note that a request came or was answered."""
        self._used_at = time.monotonic()
        self._used.set()

    def _run(self) -> None:
        while True:
            self._used.wait()
            self._used.clear()
            while (left_s := self._used_at + self._idle_s - time.monotonic()) > 0:
                time.sleep(left_s)
            self._trim()
