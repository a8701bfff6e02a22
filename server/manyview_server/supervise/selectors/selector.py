"""The selectors, as a call that answers or raises, and that ends its process when it is cancelled.

A process works on one request at a time, and is kept for a while after it, because a start costs seconds.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from manyview_server.counted_noun import number_of
from manyview_server.errors import ResourceExhausted, ServiceError, error_class
from manyview_server.link.frames import LinkClosed, LinkCorrupt
from manyview_server.messages.message import Message
from manyview_server.messages.selection import RowSource, SelectionFailed
from manyview_server.supervise.cores import CoreBudget, oom_kills
from manyview_server.supervise.process import WORKER_COMMAND, Forks, WorkerProcess
from manyview_server.supervise.worker_call import WorkerCall
from manyview_server.system.host_memory import host_memory

MEMORY_FRACTION = 0.25
"""The share of this machine's memory that the rows of one request may take."""
BYTES_PER_FEATURE = 4
BYTES_PER_NEIGHBOR = 12
"""A distance and the number of a row."""
RETRY_AFTER_S = 2.0

SelectorStage = Literal["queued", "starting", "computing"]
OnStage = Callable[[SelectorStage], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectorLimits:
    """The selectors that work at once, and the time that they may take."""

    max_processes: int = 2
    max_requests: int = 32
    """The most requests that are in progress or wait."""
    hello_s: float = 300.0
    """The limit from the start of a process to its first message."""
    idle_s: float = 60.0
    """A process that has had no work for this time is ended."""
    exit_s: float = 2.0
    """The time that a process has to exit by itself."""


class SelectorPool:
    """Keeps a few selectors. `ask` starts one if none is free; `close` ends all of them."""

    def __init__(
        self,
        budget: CoreBudget,
        device: str,
        *,
        command: Sequence[str] = WORKER_COMMAND,
        forks: Forks | None = None,
        limits: SelectorLimits | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        self._budget = budget
        self._device = device
        self._limits = limits = limits or SelectorLimits()
        self._worker = WorkerCall(
            "selector", command, forks, hello_s=limits.hello_s, exit_s=limits.exit_s, retry_after_s=RETRY_AFTER_S
        )
        self._memory_bytes = int(MEMORY_FRACTION * host_memory().limit_bytes) if memory_bytes is None else memory_bytes
        self._slots = asyncio.Semaphore(limits.max_processes)
        self._idle: list[tuple[WorkerProcess, asyncio.TimerHandle]] = []
        self._busy: set[WorkerProcess] = set()
        self._num_requests = 0

    def source(
        self, directory: str, num_rows: int, num_features: int, *, unit: bool, num_neighbors: int = 0
    ) -> RowSource:
        """Return the rows of a table in the form in which requests name them. `num_neighbors` of each will be found.

        Raises:
            ResourceExhausted: SELECTION_TOO_LARGE, they take more memory than there is for them.
        """
        num_bytes = num_rows * (BYTES_PER_FEATURE * num_features + BYTES_PER_NEIGHBOR * num_neighbors)
        if num_bytes > self._memory_bytes:
            of_each = f" and {number_of(num_neighbors, 'neighbor')}" if num_neighbors else ""
            message = (
                f"{number_of(num_rows, 'embedding')} of {number_of(num_features, 'feature')}{of_each} take "
                f"{num_bytes:,} bytes of memory, "
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

    async def ask(self, request: Message, on_stage: OnStage = lambda _: None) -> Message:
        """Return the answer to a request. Cancelling it kills the process that works on it.

        `on_stage` is called when the request starts to wait for a process, when a process starts for it, and when one
        works on it.

        Raises:
            ServiceError: the error that the selector answers; RESOURCE_EXHAUSTED SELECTOR_QUEUE_FULL;
                SELECTION_OUT_OF_MEMORY or INTERNAL if it died; UNAVAILABLE SELECTOR_START or DRAINING.
        """
        if self._num_requests >= self._limits.max_requests:
            message = f"{number_of(self._num_requests, 'selection is', 'selections are')} already waiting"
            raise ResourceExhausted("SELECTOR_QUEUE_FULL", message, retry_after_s=RETRY_AFTER_S)
        self._num_requests += 1
        try:
            answer = await self._ask(request, on_stage)
        finally:
            self._num_requests -= 1
        if isinstance(answer, SelectionFailed):
            raise error_class(answer.code)(answer.reason, answer.message)
        return answer

    async def close(self) -> None:
        """End all processes. Requests in progress and later ones fail with UNAVAILABLE DRAINING."""
        self._worker.close()
        for process, timer in self._idle:
            timer.cancel()
            self._worker.retire(process)
        self._idle.clear()
        while self._num_requests:
            for process in self._busy:
                process.kill()
            await asyncio.sleep(0.01)
        await self._worker.finish()

    async def _ask(self, request: Message, on_stage: OnStage) -> Message:
        if self._slots.locked():
            on_stage("queued")
        async with self._slots:
            on_stage("computing")
            if (process := self._take_idle()) is not None:
                # It may have been killed while it was idle, which is noticed only now. A busy machine takes its time to
                # end a process, so how soon it died proves nothing: a fresh process gets the request once more.
                with suppress(_IdleProcessDied):
                    return await self._answer(process, request, was_idle=True)
            on_stage("starting")
            process = await self._worker.start(self._budget.embedder_threads)
            on_stage("computing")
            return await self._answer(process, request)

    async def _answer(self, process: WorkerProcess, request: Message, *, was_idle: bool = False) -> Message:
        async with self._borrowed(process):
            kills_before = oom_kills()
            try:
                await process.link.send(request)
                return await process.link.receive()
            except (LinkClosed, LinkCorrupt) as error:
                lacked_memory = oom_kills() > kills_before
                if was_idle and isinstance(error, LinkClosed) and not (self._worker.closed or lacked_memory):
                    raise _IdleProcessDied from error
                raise await self._death(process, error, lacked_memory=lacked_memory) from error

    @asynccontextmanager
    async def _borrowed(self, process: WorkerProcess) -> AsyncIterator[None]:
        """Keep the process busy, and idle afterwards. If anything goes wrong, kill it, and wait until it is gone."""
        self._busy.add(process)
        try:
            self._worker.check_open()
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
            self._worker.retire(process)
        return None

    def _retire(self, process: WorkerProcess) -> None:
        self._idle = [(other, timer) for other, timer in self._idle if other is not process]
        self._worker.retire(process)

    async def _death(self, process: WorkerProcess, error: Exception, *, lacked_memory: bool) -> ServiceError:
        """Return the error of a request whose process died."""
        error_id = uuid.uuid4().hex[:12]
        words = await self._worker.died(process, repr(error), error_id=error_id)
        if self._worker.closed:
            return self._worker.draining()
        if words == "SIGKILL" and lacked_memory:
            message = "the server does not have enough memory: select from fewer images, or with a smaller model"
            return ResourceExhausted("SELECTION_OUT_OF_MEMORY", message)
        text = f"the selector died: {words} (error {error_id} in the server's log)"
        return ServiceError("INTERNAL", text, metadata={"error_id": error_id})


class _IdleProcessDied(Exception):
    """A process that had been idle died before it answered, and the kernel killed nothing for lack of memory."""
