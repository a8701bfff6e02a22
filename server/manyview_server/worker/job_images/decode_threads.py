"""Threads that decode images, at a lower priority than the training for which they decode.

While a step computes, it has the cores. While it waits for images, the decoders have them. The kernel does this by
itself, so nobody has to guess how many threads a job needs.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

NICENESS = 10
"""Beside a thread of the step, a decoder gets a tenth of a core's time."""

P = ParamSpec("P")
T = TypeVar("T")


class DecodeThreads:
    """A few threads, which start with the first task and end with `close`."""

    def __init__(self, num_threads: int) -> None:
        self._pool = ThreadPoolExecutor(num_threads, "decode", initializer=_prepare)

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Let a thread do the work, after all earlier tasks were begun. An exception of it is in the future."""
        return self._pool.submit(work, *args, **kwargs)

    def close(self) -> None:
        """Drop the tasks that wait, and end the threads once those that are being done are over."""
        self._pool.shutdown(cancel_futures=True)


def _prepare() -> None:
    torch.set_num_threads(1)  # for this thread: OpenMP keeps the number per thread
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
