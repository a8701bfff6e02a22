"""The response stream of one call: its messages, and reports of progress while the caller waits.

One coroutine does the work and sends the responses. If the caller goes away, the coroutine is cancelled, whatever it
waits for at that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Generic, TypeVar

from manyview.v1 import embed_service_pb2 as pb
from manyview_server.front.rpc.draining import Draining

FIRST_PROGRESS_S = 0.3
PROGRESS_S = 1.0

Response = TypeVar("Response")
Result = TypeVar("Result")


class ResponseStream(Generic[Response]):
    """The response stream of one call."""

    def __init__(self, draining: Draining, wrap: Callable[[pb.EmbeddingsProgress], Response]) -> None:
        """`wrap` makes a response that reports progress."""
        self._draining = draining
        self._wrap = wrap
        self._sent: asyncio.Queue[Response] = asyncio.Queue(maxsize=1)

    async def send(self, response: Response) -> None:
        """Send one response, once the caller has taken the previous one. Raises UNAVAILABLE DRAINING."""
        self._draining.check()
        await self._sent.put(response)

    async def wait(self, work: Coroutine[Any, Any, Result], progress: Callable[[], pb.EmbeddingsProgress]) -> Result:
        """Return the result of `work`, and report progress to the caller until it is there.

        Raises UNAVAILABLE DRAINING.
        """
        task = asyncio.ensure_future(self._draining.interrupting(work))
        timeout_s = FIRST_PROGRESS_S
        try:
            while not (await asyncio.wait({task}, timeout=timeout_s))[0]:
                await self.send(self._wrap(progress()))
                timeout_s = PROGRESS_S
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def responses(self, work: Coroutine[Any, Any, None]) -> AsyncGenerator[Response, None]:
        """Yield what `work` sends, then raise its error if it failed. Closing this generator cancels `work`."""

        task = asyncio.create_task(work)
        getting = asyncio.create_task(self._sent.get())
        try:
            while True:
                await asyncio.wait({task, getting}, return_when=asyncio.FIRST_COMPLETED)
                if getting.done():
                    yield getting.result()
                    getting = asyncio.create_task(self._sent.get())
                elif self._sent.empty():  # so the work is done, and everything that it sent was yielded
                    break
            task.result()
        finally:
            task.cancel()
            getting.cancel()
            await asyncio.gather(task, getting, return_exceptions=True)
