"""The server's end, as every stream sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from manyview_server.errors import Unavailable
from manyview_server.system import awake_time

RETRY_AFTER_S = 5.0
# A client that has not taken its answer for so long in a drain is not waited for any more.
STUCK_S = 5.0
POLL_S = 0.05

Result = TypeVar("Result")


def draining_error() -> Unavailable:
    """What a caller gets from a server that shuts down."""
    return Unavailable("DRAINING", "the server shuts down", retry_after_s=RETRY_AFTER_S)


class OpenCall:
    """A call that a drain waits for."""

    def __init__(self) -> None:
        self.writing_since: float | None = None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around sending an answer, which waits for a client that does not read."""
        self.writing_since = awake_time.now()
        try:
            yield
        finally:
            self.writing_since = None


class Draining:
    """A switch that is thrown once, when the server begins to shut down, and a count of the calls that it waits for."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._begun_at = 0.0
        self._calls: set[OpenCall] = set()

    @property
    def begun(self) -> bool:
        """Whether the server shuts down."""
        return self._begun.is_set()

    def begin(self) -> None:
        """Throw the switch. From now on waits end."""
        self._begun_at = awake_time.now()
        self._begun.set()

    def check(self) -> None:
        """Raise UNAVAILABLE DRAINING where the server shuts down."""
        if self.begun:
            raise draining_error()

    @contextmanager
    def waited_for(self) -> Iterator[OpenCall]:
        """Around a call: `quiet` waits for its end."""
        call = OpenCall()
        self._calls.add(call)
        try:
            yield call
        finally:
            self._calls.discard(call)

    async def quiet(self) -> None:
        """Wait until no call is open but those whose clients take nothing any more."""
        while any(not self._is_stuck(call) for call in self._calls):
            await asyncio.sleep(POLL_S)

    def _is_stuck(self, call: OpenCall) -> bool:
        since = call.writing_since
        return since is not None and awake_time.now() - max(since, self._begun_at) > STUCK_S

    async def interrupting(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The work's result, or UNAVAILABLE DRAINING as soon as the server shuts down; the work is cancelled then."""
        task = asyncio.ensure_future(work)
        watch = asyncio.ensure_future(self._begun.wait())
        try:
            await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise draining_error()
        finally:
            task.cancel()
            watch.cancel()
