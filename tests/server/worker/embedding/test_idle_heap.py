from __future__ import annotations

import ctypes
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from manyview_server.worker.embedding import idle_heap
from manyview_server.worker.embedding.idle_heap import IdleHeap


class Trims:
    def __init__(self) -> None:
        self.times: list[float] = []
        self.came = threading.Event()

    def __call__(self) -> None:
        self.times.append(time.monotonic())
        self.came.set()


def test_the_heap_is_trimmed_once_after_work_and_not_while_requests_come() -> None:
    trims = Trims()
    heap = IdleHeap(idle_s=0.2, trim=trims)
    heap.start()
    time.sleep(0.3)
    assert not trims.times
    for _ in range(6):
        heap.used()
        time.sleep(0.05)
    last = time.monotonic()
    heap.used()
    assert trims.came.wait(5)
    assert trims.times[0] - last >= 0.2
    time.sleep(0.5)
    first = len(trims.times)
    time.sleep(0.4)
    assert len(trims.times) == first <= 2
    trims.came.clear()
    heap.used()
    assert trims.came.wait(5)


def test_freed_memory_goes_back_to_the_system() -> None:
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("only glibc can give it back")
    # Small pieces: they lie in the heap, whatever malloc does with large ones. The last one keeps the end of it.
    pieces = [np.ones(2_000) for _ in range(5_000)]
    end = pieces.pop()
    del pieces
    before = resident_kb()
    idle_heap.trim()
    assert before - resident_kb() > 40_000
    assert end[0] == 1


def resident_kb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4
