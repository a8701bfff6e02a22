"""The step timer, as a call that answers or raises.

A process measures one step and ends. It measures only while no trainer runs: two of them on one device would slow each
other down, and the time would be wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from manyview_server.errors import DeadlineExceeded, FailedPrecondition, Unavailable, error_class
from manyview_server.link.frames import LinkClosed, LinkCorrupt
from manyview_server.messages.message import Json
from manyview_server.messages.timing import StepTimed, TimeStep, TimingFailed
from manyview_server.supervise.cores import CoreBudget
from manyview_server.supervise.process import WORKER_COMMAND, Forks, WorkerProcess
from manyview_server.supervise.timers.step_times import StepTimes
from manyview_server.supervise.worker_call import WorkerCall

RETRY_AFTER_S = 1.0
MEASURED_FRACTION = 0.5
"""The share of the time for an answer in which larger batches are tried. The last step may take as long again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimerLimits:
    """The times that a process has."""

    hello_s: float = 60.0
    """The limit from the start of the process to its first message."""
    exit_s: float = 2.0
    """The time that the process has to exit by itself."""


class StepTimerSupervisor:
    """Measures steps on one device, one at a time; `close` ends the measurement."""

    def __init__(
        self,
        times: StepTimes,
        budget: CoreBudget,
        device: str,
        *,
        command: Sequence[str] = WORKER_COMMAND,
        forks: Forks | None = None,
        limits: StepTimerLimits | None = None,
    ) -> None:
        limits = limits or StepTimerLimits()
        self._times = times
        self._budget = budget
        self._device = device
        self._starts_at_once = forks is not None
        self._worker = WorkerCall(
            "timer", command, forks, hello_s=limits.hello_s, exit_s=limits.exit_s, retry_after_s=RETRY_AFTER_S
        )
        self._turn = asyncio.Lock()
        self._process: WorkerProcess | None = None

    @property
    def device(self) -> str:
        """The device on which steps are measured: "cpu" or "cuda:0"."""
        return self._device

    @property
    def num_threads(self) -> int:
        """The threads of a trainer on it."""
        return self._budget.trainer_threads

    @property
    def starts_at_once(self) -> bool:
        """Can a process start in tens of milliseconds? Otherwise it takes seconds."""
        return self._starts_at_once

    async def time(self, settings: dict[str, Json], *, num_images: int, decode_size: int, wait_s: float) -> StepTimed:
        """Return the times of a job's parts, measured now or earlier. Wait at most `wait_s`; 0 means only earlier ones.

        Raises:
            Unavailable: NOT_MEASURED; DEVICE_BUSY, a trainer runs and nothing was measured earlier; TIMER_START;
                DRAINING.
            DeadlineExceeded: TIMING_DEADLINE.
            FailedPrecondition: TIMER_CRASHED, the process died.
            ServiceError: the error that the process answers.
        """
        request = TimeStep(
            settings=settings,
            num_images=num_images,
            decode_size=decode_size,
            device=self._device,
            num_threads=self.num_threads,
            limit_s=MEASURED_FRACTION * wait_s,
        )
        if (known := self._times.find(request)) is not None:
            return known
        if wait_s <= 0:
            raise Unavailable("NOT_MEASURED", "no step of it was measured on this device yet")
        try:
            async with asyncio.timeout(wait_s), self._turn:
                return self._times.find(request) or await self._measure(request)
        except TimeoutError as error:
            message = f"a step could not be measured within {wait_s:.2g} seconds"
            raise DeadlineExceeded("TIMING_DEADLINE", message) from error

    async def close(self) -> None:
        """End the process. A measurement in progress and later ones fail with UNAVAILABLE DRAINING."""
        self._worker.close()
        if self._process:
            self._process.kill()
        async with self._turn:
            await self._worker.finish()

    async def _measure(self, request: TimeStep) -> StepTimed:
        self._check_idle()
        self._process = await self._worker.start(request.num_threads, lambda: request)
        try:
            answer = await self._answer(self._process)
        finally:
            self._process = None
        self._check_idle()  # a trainer that has started since then made the step slower
        if isinstance(answer, TimingFailed):
            raise error_class(answer.code)(answer.reason, answer.message)
        await asyncio.to_thread(self._times.keep, request, answer)
        return answer

    async def _answer(self, process: WorkerProcess) -> StepTimed | TimingFailed:
        """Return the answer of the process, which is then killed: what it holds is of no further use."""
        try:
            answer = await process.link.receive()
            if not isinstance(answer, StepTimed | TimingFailed):
                raise LinkCorrupt(f"a step timer does not send {type(answer).__name__}")
        except (LinkClosed, LinkCorrupt) as error:
            words = await self._worker.died(process, repr(error))
            if self._worker.closed:
                raise self._worker.draining() from error
            message = f"the process that measures a step ended with {words}"
            raise FailedPrecondition("TIMER_CRASHED", message) from error
        except BaseException:
            self._worker.kill(process)
            raise
        self._worker.kill(process)
        return answer

    def _check_idle(self) -> None:
        self._worker.check_open()
        if self._budget.num_trainers:
            raise Unavailable("DEVICE_BUSY", "the device trains another job now", retry_after_s=RETRY_AFTER_S)
