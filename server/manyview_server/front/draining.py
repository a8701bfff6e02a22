"""The server's end, as every stream sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from manyview_server.errors import Unavailable

RETRY_AFTER_S = 5.0

Result = TypeVar("Result")


def draining_error() -> Unavailable:
    """What a caller gets from a server that shuts down."""
    return Unavailable("DRAINING", "the server shuts down", retry_after_s=RETRY_AFTER_S)


class Draining:
    """A switch that is thrown once, when the server begins to shut down, and a count of the calls that it waits for."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._num_calls = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def begun(self) -> bool:
        """Whether the server shuts down."""
        return self._begun.is_set()

    def begin(self) -> None:
        """Throw the switch. From now on waits end."""
        self._begun.set()

    def check(self) -> None:
        """Raise UNAVAILABLE DRAINING where the server shuts down."""
        if self.begun:
            raise draining_error()

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """Around a call: `quiet` waits for its end."""
        self._num_calls += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._num_calls -= 1
            if self._num_calls == 0:
                self._quiet.set()

    async def quiet(self) -> None:
        """Wait until no call is open."""
        await self._quiet.wait()

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
