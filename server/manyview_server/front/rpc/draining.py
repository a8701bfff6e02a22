"""The shutdown of the server, as calls see it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from manyview_server.errors import Unavailable
from manyview_server.system import awake_time

RETRY_AFTER_S = 5.0
STUCK_S = 5.0
"""During a drain, a client that has not taken its answer for this long is no longer waited for."""
POLL_S = 0.05

Result = TypeVar("Result")


def draining_error() -> Unavailable:
    """Return the error for the callers of a server that is shutting down."""
    return Unavailable("DRAINING", "the server is shutting down", retry_after_s=RETRY_AFTER_S)


class OpenCall:
    """A call that a drain waits for."""

    def __init__(self) -> None:
        self.writing_since: float | None = None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Mark the time in which an answer is sent. Sending waits if the client does not read."""
        self.writing_since = awake_time.now()
        try:
            yield
        finally:
            self.writing_since = None


class Draining:
    """A switch that is set once, when the server starts to shut down, and the set of calls that the server waits for
    then."""

    def __init__(self) -> None:
        self._started = asyncio.Event()
        self._start_time = 0.0
        self._calls: set[OpenCall] = set()

    def start(self) -> None:
        """Set the switch. Calls that wait are interrupted, and new calls are refused."""
        self._start_time = awake_time.now()
        self._started.set()

    def check(self) -> None:
        """Raise UNAVAILABLE DRAINING if the server is shutting down."""
        if self._started.is_set():
            raise draining_error()

    async def interruption(self) -> Unavailable:
        """Wait until the server starts to shut down, and return the error for an open stream."""
        await self._started.wait()
        return draining_error()

    @contextmanager
    def open_call(self) -> Iterator[OpenCall]:
        """Count a call as open. `until_quiet` waits for its end."""
        call = OpenCall()
        self._calls.add(call)
        try:
            yield call
        finally:
            self._calls.discard(call)

    async def until_quiet(self) -> None:
        """Wait until every open call has ended or is stuck because its client does not read."""
        while any(not self._is_stuck(call) for call in self._calls):
            await asyncio.sleep(POLL_S)

    def _is_stuck(self, call: OpenCall) -> bool:
        since = call.writing_since
        return since is not None and awake_time.now() - max(since, self._start_time) > STUCK_S

    async def interrupting(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Return the result of `work`. When the server starts to shut down, cancel it and raise UNAVAILABLE DRAINING.

        It makes two tasks. A stream that waits for each of many messages uses `interruption` instead.
        """
        task = asyncio.ensure_future(work)
        watch = asyncio.ensure_future(self._started.wait())
        try:
            await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise draining_error()
        finally:
            task.cancel()
            watch.cancel()
