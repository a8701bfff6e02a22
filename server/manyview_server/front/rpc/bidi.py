"""Bidirectional streams: read requests within a window, answer them in order, and send errors in the stream first.

A client may lose the status of a stream that the server ends early (grpc#36066). So a terminal error is first sent as a
message. Then the server reads and drops the remaining requests for a while, and sets the status only after that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any, Generic, Protocol, TypeVar

from manyview.v1 import types_pb2
from manyview_server.errors import ServiceError
from manyview_server.front.rpc.status import public_error, stream_error
from manyview_server.system import awake_time

DROP_REST_S = 5.0


class Measured(Protocol):
    """A request with its size on the wire."""

    @property
    def num_bytes(self) -> int:
        """The number of bytes that count against the window."""


Request = TypeVar("Request")
Taken = TypeVar("Taken", bound=Measured)
Response = TypeVar("Response")


class RequestReader(Generic[Request]):
    """Reads the requests of a stream in a task of its own, one request ahead.

    It needs that task because a read that is cancelled breaks the stream.
    """

    def __init__(self, requests: AsyncIterator[Request]) -> None:
        self._requests = requests
        self._read: asyncio.Queue[Request | Exception | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(1)
        self._dropping = False
        self._task = asyncio.create_task(self._run())
        self._watches: set[asyncio.Task[None]] = set()

    async def _run(self) -> None:
        last: Exception | None = None
        try:
            async for request in self._requests:
                if not self._dropping:
                    await self._room.acquire()
                    self._read.put_nowait(request)
        except Exception as error:
            last = error
        self._read.put_nowait(last)

    def end_when(self, interruption: Coroutine[Any, Any, ServiceError]) -> None:
        """Make `next` raise the error that `interruption` returns, as soon as it returns."""
        self._watches.add(asyncio.create_task(self._end_when(interruption)))

    async def _end_when(self, interruption: Coroutine[Any, Any, ServiceError]) -> None:
        self._read.put_nowait(await interruption)

    async def next(self) -> Request | None:
        """Return the next request, or None at the half-close. The death of a client looks like a half-close."""
        item = await self._read.get()
        if isinstance(item, Exception):
            raise item
        self._room.release()
        return item

    async def drop_rest(self, timeout_s: float) -> None:
        """Read and drop requests until the client half-closes or the time is over."""
        self._dropping = True
        self._room.release()
        with suppress(TimeoutError):
            async with awake_time.timeout(timeout_s):
                await asyncio.wait({self._task})

    def close(self) -> None:
        """Stop reading."""
        for task in (self._task, *self._watches):
            task.cancel()


class RequestWindow:
    """Limits the requests that are taken but not answered yet. A request that exceeds the limit alone may enter when no
    other is inside."""

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
    window: RequestWindow,
) -> AsyncGenerator[Response, None]:
    """Work on several requests at once, and yield the answers in the order of the requests.

    The work on the requests starts in that order, too. The answers end when `take` returns None. An error of `take` or
    `work` is raised after the answers to all earlier requests.
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
    """Yield the responses. If they end with an error, yield it as the last response, and raise it once the client has
    half-closed, at the latest after `DROP_REST_S`."""
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
