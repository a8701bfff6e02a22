"""Bidirectional streams: requests read within a window, answers in their order, errors in the stream first.

A client whose stream is ended early may lose the status (grpc#36066): a terminal error is sent as a message, then the
rest of the requests is read and dropped for a while, and only then is the status set.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any, Generic, Protocol, TypeVar

from manyview.v1 import types_pb2
from manyview_server.front.rpc.status import public_error, stream_error
from manyview_server.system import awake_time

DROP_REST_S = 5.0


class Measured(Protocol):
    """Something taken from a stream, with its size on the wire."""

    @property
    def num_bytes(self) -> int:
        """Counts against the window."""


Request = TypeVar("Request")
Taken = TypeVar("Taken", bound=Measured)
Response = TypeVar("Response")


class RequestReader(Generic[Request]):
    """Reads a stream in a task of its own, one request ahead, since a read that is cancelled breaks the stream."""

    def __init__(self, requests: AsyncIterator[Request]) -> None:
        self._requests = requests
        self._slot: asyncio.Queue[Request | Exception | None] = asyncio.Queue(maxsize=1)
        self._dropping = False
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        last: Exception | None = None
        try:
            async for request in self._requests:
                if not self._dropping:
                    await self._slot.put(request)
        except Exception as error:
            last = error
        if not self._dropping:
            await self._slot.put(last)

    async def next(self) -> Request | None:
        """The next request; None at the half-close, which a client's death looks like too."""
        item = await self._slot.get()
        if isinstance(item, Exception):
            raise item
        return item

    async def drop_rest(self, timeout_s: float) -> None:
        """Read on without looking, until the client half-closes or the time is over."""
        self._dropping = True
        while not self._slot.empty():
            self._slot.get_nowait()
        with suppress(TimeoutError):
            async with awake_time.timeout(timeout_s):
                await asyncio.wait({self._task})

    def close(self) -> None:
        """Stop reading."""
        self._task.cancel()


class Window:
    """How much may be in without an answer. A batch that is over the bound by itself passes when nothing else is in."""

    def __init__(self, max_batches: int, max_bytes: int) -> None:
        self._max_batches = max_batches
        self._max_bytes = max_bytes
        self._num_batches = 0
        self._num_bytes = 0
        self._changed = asyncio.Condition()

    async def enter(self, num_bytes: int) -> None:
        """Wait until there is room."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._has_room(num_bytes))
            self._num_batches += 1
            self._num_bytes += num_bytes

    async def leave(self, num_bytes: int) -> None:
        """Give the room back."""
        async with self._changed:
            self._num_batches -= 1
            self._num_bytes -= num_bytes
            self._changed.notify_all()

    def _has_room(self, num_bytes: int) -> bool:
        if self._num_batches == 0:
            return True
        return self._num_batches < self._max_batches and self._num_bytes + num_bytes <= self._max_bytes


async def in_order(
    take: Callable[[], Awaitable[Taken | None]],
    work: Callable[[Taken], Coroutine[Any, Any, Response]],
    window: Window,
) -> AsyncGenerator[Response, None]:
    """Work on several requests at once and yield the answers in the order of the requests.

    The work on each is begun in that order too. Ends when `take` returns None. What `take` or `work` raises comes after
    the answers to everything before it.
    """
    pending: asyncio.Queue[tuple[asyncio.Task[Response], int] | Exception | None] = asyncio.Queue()
    tasks: set[asyncio.Task[Response]] = set()

    async def accept() -> None:
        try:
            while (request := await take()) is not None:
                await window.enter(request.num_bytes)
                task = asyncio.create_task(work(request))
                tasks.add(task)
                pending.put_nowait((task, request.num_bytes))
            pending.put_nowait(None)
        except Exception as error:
            pending.put_nowait(error)

    acceptor = asyncio.create_task(accept())
    try:
        while (item := await pending.get()) is not None:
            if isinstance(item, Exception):
                raise item
            task, num_bytes = item
            yield await task
            tasks.discard(task)
            await window.leave(num_bytes)
    finally:
        acceptor.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(acceptor, *tasks, return_exceptions=True)


async def ending_in_band(
    responses: AsyncGenerator[Response, None],
    reader: RequestReader[Any],
    wrap: Callable[[types_pb2.StreamError], Response],
) -> AsyncIterator[Response]:
    """The responses; an error is sent as the last of them and raised when the client has half-closed, or 5 s later."""
    try:
        async with aclosing(responses) as answers:
            async for response in answers:
                yield response
    except Exception as error:
        failure = public_error(error)
        yield wrap(stream_error(failure))
        await reader.drop_rest(DROP_REST_S)
        raise failure from error
    finally:
        reader.close()
