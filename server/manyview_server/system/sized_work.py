"""Work on bytes in the event loop if they are few, and in a thread if they are many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
SMALL_BYTES = 64 << 10
"""The work on so many bytes takes less time than to hand it to a thread."""


async def run_sized(num_bytes: int, work: Callable[[], T]) -> T:
    """Return what `work` returns, which hashes or checks `num_bytes` bytes."""
    return work() if num_bytes <= SMALL_BYTES else await asyncio.to_thread(work)
