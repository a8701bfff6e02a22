"""The selectors, as the front sees them: a call that answers or raises, and that ends its process when it is cancelled.

A process works on one request at a time, and is kept for a while after it, since loading torch takes seconds.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from manyview_server.errors import ResourceExhausted, ServiceError, Unavailable, error_class
from manyview_server.link.frames import LinkClosed, LinkCorrupt
from manyview_server.messages.message import Message
from manyview_server.messages.selection import RowSource, SelectionFailed
from manyview_server.supervise.cores import CoreBudget, oom_kills
from manyview_server.supervise.process import WORKER_COMMAND, WorkerProcess, describe_exit
from manyview_server.system import awake_time, open_files
from manyview_server.system.host_memory import host_memory

log = logging.getLogger(__name__)

MEMORY_FRACTION = 0.25
"""Of this machine's memory, for the rows of one request."""
BYTES_PER_FEATURE = 4
BYTES_PER_NEIGHBOR = 12
"""A distance and a row's number."""
RETRY_AFTER_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectorLimits:
    """How many work at once, and how long they are waited for."""

    max_processes: int = 2
    # That work and wait.
    max_requests: int = 32
    # From the start of a process to its first message.
    hello_s: float = 300.0
    # Without work, until it is ended.
    idle_s: float = 60.0
    exit_s: float = 2.0


class SelectorPool:
    """Selects, finds and fits. `ask` starts a process where none is free; `close` ends all of them."""

    def __init__(
        self,
        budget: CoreBudget,
        device: str,
        *,
        command: Sequence[str] = WORKER_COMMAND,
        limits: SelectorLimits | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        self._budget = budget
        self._device = device
        self._command = command
        self._limits = limits or SelectorLimits()
        self._memory_bytes = int(MEMORY_FRACTION * host_memory().limit_bytes) if memory_bytes is None else memory_bytes
        self._slots = asyncio.Semaphore(self._limits.max_processes)
        self._idle: list[tuple[WorkerProcess, asyncio.TimerHandle]] = []
        self._busy: set[WorkerProcess] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._num_callers = 0
        self._closed = False

    def source(
        self, directory: str, num_rows: int, num_features: int, *, unit: bool, num_neighbors: int = 0
    ) -> RowSource:
        """The rows of a table, as a request names them; `num_neighbors` are found for each.

        Raises:
            ResourceExhausted: SELECTION_TOO_LARGE, they take more memory than there is for them.
        """
        num_bytes = num_rows * (BYTES_PER_FEATURE * num_features + BYTES_PER_NEIGHBOR * num_neighbors)
        if num_bytes > self._memory_bytes:
            of_each = f" and {num_neighbors:,} neighbors" if num_neighbors else ""
            message = (
                f"{num_rows:,} embeddings of {num_features:,} features{of_each} take {num_bytes:,} bytes of memory, "
                f"and {self._memory_bytes:,} are allowed, a quarter of the server's: select from fewer, or with a "
                "smaller model"
            )
            raise ResourceExhausted("SELECTION_TOO_LARGE", message)
        return RowSource(
            directory=directory,
            num_rows=num_rows,
            num_features=num_features,
            unit=unit,
            device=self._device,
            num_threads=self._budget.embedder_threads,
        )

    async def ask(self, request: Message) -> Message:
        """The answer to a request; cancelling it kills the process that works on it.

        Raises:
            ServiceError: what the selector says; RESOURCE_EXHAUSTED SELECTOR_QUEUE_FULL; SELECTION_OUT_OF_MEMORY or
                INTERNAL where it died; UNAVAILABLE where it cannot start, or DRAINING.
        """
        if self._num_callers >= self._limits.max_requests:
            message = f"{self._num_callers} selections wait already"
            raise ResourceExhausted("SELECTOR_QUEUE_FULL", message, retry_after_s=RETRY_AFTER_S)
        self._num_callers += 1
        try:
            answer = await self._ask(request)
        finally:
            self._num_callers -= 1
        if isinstance(answer, SelectionFailed):
            raise error_class(answer.code)(answer.reason, answer.message)
        return answer

    async def _ask(self, request: Message) -> Message:
        async with self._slots:
            if (process := self._take_idle()) is not None:
                # It may have been killed while it rested, which is noticed only now. A busy machine takes its time to
                # end a process, so how soon it went proves nothing: the request is asked once more, of a fresh process.
                with suppress(_RestedDied):
                    return await self._ask_of(process, request, rested=True)
            return await self._ask_of(await self._start(), request)

    async def _ask_of(self, process: WorkerProcess, request: Message, *, rested: bool = False) -> Message:
        async with self._lent(process):
            kills = oom_kills()
            try:
                await process.link.send(request)
                return await process.link.receive()
            except (LinkClosed, LinkCorrupt) as error:
                lacked_memory = oom_kills() > kills
                if rested and isinstance(error, LinkClosed) and not (self._closed or lacked_memory):
                    raise _RestedDied from error
                raise await self._death(process, error, lacked_memory=lacked_memory) from error

    async def close(self) -> None:
        """End all processes. Requests in work and later ones fail with UNAVAILABLE DRAINING."""
        self._closed = True
        for process, timer in self._idle:
            timer.cancel()
            self._spawn(self._end(process))
        self._idle.clear()
        while self._tasks or self._num_callers:
            for process in self._busy:
                process.kill()
            await asyncio.sleep(0.01)

    @asynccontextmanager
    async def _lent(self, process: WorkerProcess) -> AsyncIterator[None]:
        """The process as one's own: kept for the next one afterwards, unless anything went wrong."""
        self._busy.add(process)
        try:
            if self._closed:
                raise _draining()
            yield
        except BaseException:
            process.kill()
            await asyncio.shield(process.stop())
            raise
        else:
            timer = asyncio.get_running_loop().call_later(self._limits.idle_s, self._retire, process)
            self._idle.append((process, timer))
        finally:
            self._busy.discard(process)

    def _take_idle(self) -> WorkerProcess | None:
        while self._idle:
            process, timer = self._idle.pop()
            timer.cancel()
            if process.running:
                return process
            self._spawn(self._end(process))
        return None

    async def _start(self) -> WorkerProcess:
        if self._closed:
            raise _draining()
        process = None
        try:
            threads = self._budget.embedder_threads
            process = await WorkerProcess.start("selector", num_threads=threads, command=self._command)
            self._busy.add(process)
            async with awake_time.timeout(self._limits.hello_s):
                await process.link.receive()
        except (OSError, TimeoutError, LinkClosed, LinkCorrupt) as error:
            words = describe_exit(await process.stop()) if process else ""
            stderr = process.stderr_tail if process else ""
            if self._closed:
                raise _draining() from error
            if open_files.are_lacking(error):
                raise open_files.too_many(error) from error
            log.error("selector cannot be started", extra={"error": repr(error), "exit": words, "stderr": stderr})
            raise Unavailable("SELECTOR_START", "the selector does not start", retry_after_s=RETRY_AFTER_S) from error
        except BaseException:
            if process:
                await asyncio.shield(process.stop())
            raise
        finally:
            if process:
                self._busy.discard(process)
        return process

    async def _death(self, process: WorkerProcess, error: Exception, *, lacked_memory: bool) -> ServiceError:
        """What a death is called; what the process printed goes to the log alone."""
        words = describe_exit(await process.stop(self._limits.exit_s))
        if self._closed:
            return _draining()
        error_id = uuid.uuid4().hex[:12]
        known = {"error_id": error_id, "exit": words, "why": repr(error), "stderr": process.stderr_tail}
        log.error("selector died", extra=known)
        if words == "SIGKILL" and lacked_memory:
            message = "the server has not the memory for it: select from fewer images, or with a smaller model"
            return ResourceExhausted("SELECTION_OUT_OF_MEMORY", message)
        text = f"the selector died: {words} (error {error_id} in the server's log)"
        return ServiceError("INTERNAL", text, metadata={"error_id": error_id})

    def _retire(self, process: WorkerProcess) -> None:
        self._idle = [(other, timer) for other, timer in self._idle if other is not process]
        self._spawn(self._end(process))

    async def _end(self, process: WorkerProcess) -> None:
        await process.stop(self._limits.exit_s)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _RestedDied(Exception):
    """A process that had rested is gone before it answered, and the kernel killed nothing for lack of memory."""


def _draining() -> Unavailable:
    return Unavailable("DRAINING", "the server is stopping", retry_after_s=RETRY_AFTER_S)
