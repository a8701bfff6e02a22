"""Threads that decode images ahead of the training.

They have work for a few batches at most. So they rest while a step computes and those are decoded, and they have the
cores while the step waits for images.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


class DecodeThreads:
    """A few threads, which start with the first task and end with `close`."""

    def __init__(self, num_threads: int) -> None:
        # OpenMP keeps its number of threads per thread: none of these starts a team of its own.
        self._pool = ThreadPoolExecutor(num_threads, "decode", initializer=partial(torch.set_num_threads, 1))

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Let a thread do the work, after all earlier tasks were begun. An exception of it is in the future."""
        return self._pool.submit(work, *args, **kwargs)

    def close(self) -> None:
        """Drop the tasks that wait, and end the threads once those that are being done are over."""
        self._pool.shutdown(cancel_futures=True)
