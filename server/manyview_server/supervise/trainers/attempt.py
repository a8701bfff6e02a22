"""One trainer process, from its start to its end. It gets its task, is listened to and watched, and is stopped.

Its reports go to the store in the order in which it sent them. The caller decides what follows from its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from manyview_server.link.decode_notes import TOO_SLOW, Note
from manyview_server.link.frames import LinkClosed, LinkCorrupt, MessageTooLarge
from manyview_server.messages.message import Message
from manyview_server.messages.training import StartTraining, StopTraining, TrainingEnded
from manyview_server.supervise.cores import oom_kills
from manyview_server.supervise.decode_watch import DecodeWatch, SlowDecode
from manyview_server.supervise.process import Forks, WorkerProcess, describe_exit
from manyview_server.supervise.trainers.reports import Stalled, TrainerReports
from manyview_server.system import awake_time

log = logging.getLogger(__name__)

OUT_OF_MEMORY = "the machine had no memory left, and its kernel killed it"
MEMORY_HINT = "lower batch_size, image_size or memory_bank_size, or give the server more memory"

TOO_LARGE_HINT = "create the job again, with less in the field that the message names"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """The limits of a trainer, in seconds for which the server was awake."""

    hello_s: float = 300.0
    """The limit from the start of the process to its first message. Importing torch from a cold disk takes long."""
    silence_s: float = 30.0
    """The limit between two messages. The trainer sends a heartbeat every second."""
    step_s: float = 600.0
    """The limit for one step, or 20 times the longest step so far if that is more, because the first one may compile.
    In other stages, such as decoding, the limit without any progress."""
    stop_s: float = 10.0
    """The time from the request to stop to SIGKILL, for a checkpoint. Unless there is a hurry, the time of two steps is
    added."""
    exit_s: float = 10.0
    """The limit from its last message to its exit."""
    decode_cpu_s: float = 10.0
    """The most CPU seconds to decode one image."""
    restart_s: float = 1.0
    """The pause before the first restart. It is doubled for each further one."""
    restart_at_most_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The end of a trainer. `outcome` is "succeeded", "stopped", "failed" (the trainer says so itself) or "died".

    The reasons of a death are WORKER_START, TRAINER_DIED, STALLED, HOST_OUT_OF_MEMORY, DECODE_TOO_SLOW.
    """

    outcome: str
    reason: str = ""
    message: str = ""
    hint: str = ""
    tasks: tuple[Note, ...] = ()
    """The decodes that a trainer was working on when it died. With DECODE_TOO_SLOW, only those that took too long."""


class TrainerAttempt:
    """Runs one trainer with the message `start`. Its reports go to `reports`.

    Call `run` once, and `stop` at any time.
    """

    def __init__(
        self,
        start: StartTraining,
        reports: TrainerReports,
        *,
        command: Sequence[str],
        forks: Forks | None = None,
        patience: Patience,
    ) -> None:
        self._start = start
        self._reports = reports
        self._command = command
        self._forks = forks
        self._patience = patience
        self._process: WorkerProcess | None = None
        self._has_task = False
        self._stalled = False
        self._slow: tuple[SlowDecode, ...] = ()
        self._stop_wanted = False
        self._cut_off_message = ""
        self._asking: asyncio.Task[None] | None = None
        self._killing: awake_time.AwakeTimer | None = None

    async def run(self) -> Ending:
        """Run the trainer to its end. Its process is gone when this returns."""
        if self._stop_wanted:
            return Ending(outcome="stopped")
        try:
            process = await WorkerProcess.start(
                "trainer", num_threads=self._start.num_threads, command=self._command, forks=self._forks
            )
        except OSError as error:
            return self._death("", f"it cannot be started: {error.strerror}", "")
        self._process = process
        if self._stop_wanted:
            process.kill()
        kills_before = oom_kills()
        grace_s = 0.0
        watching = asyncio.create_task(self._watch_decodes(process))
        try:
            ending, why = await self._converse(process)
            grace_s = 0.0 if why else self._patience.exit_s
            if self._stalled:
                await process.dump_stacks()
        finally:
            status = await process.stop(grace_s)
            watching.cancel()
            if self._asking:
                self._asking.cancel()
            if self._killing:
                self._killing.cancel()
        if not ending and not why and not self._slow and status == -signal.SIGKILL and oom_kills() > kills_before:
            return self._death(OUT_OF_MEMORY, "", process.stderr_tail, reason="HOST_OUT_OF_MEMORY", hint=MEMORY_HINT)
        return ending or self._death(describe_exit(status), why, process.stderr_tail)

    async def _watch_decodes(self, process: WorkerProcess) -> None:
        """Kill the trainer when it takes too long to decode one image. It may send heartbeats during that time."""
        self._slow = await DecodeWatch(process.pid, process.notes, self._patience.decode_cpu_s).wait()
        process.kill()

    def stop(self, *, hurry: bool = False) -> None:
        """Ask the trainer to write a checkpoint and exit, and kill it when it takes too long.

        A second call changes nothing, except that a `hurry` may shorten the time that the trainer has."""
        self._stop_wanted = True
        if self._process is None:
            return
        if not self._has_task:
            self._process.kill()
            return
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_to_stop(self._process))
        steps_s = 0.0 if hurry else 2 * self._reports.longest_step_s
        self._kill_within(self._process, self._patience.stop_s + steps_s)

    async def send(self, message: Message) -> bool:
        """Send a message to the trainer. Return False if it has not got its task yet, or has ended."""
        if not self._process or not self._has_task:
            return False
        with contextlib.suppress(LinkClosed):
            await self._process.link.send(message)
            return True
        return False

    async def _ask_to_stop(self, process: WorkerProcess) -> None:
        try:
            await process.link.send(StopTraining())
        except LinkClosed:
            process.kill()

    def _kill_within(self, process: WorkerProcess, seconds: float) -> None:
        if self._killing is None or seconds < self._killing.left_s:
            if self._killing:
                self._killing.cancel()
            self._killing = awake_time.AwakeTimer(seconds, partial(self._cut_off, process, seconds))

    def _cut_off(self, process: WorkerProcess, seconds: float) -> None:
        self._cut_off_message = (
            f"it took more than {seconds:g} s to stop: what came after the last checkpoint is done again"
        )
        process.kill()

    async def _converse(self, process: WorkerProcess) -> tuple[Ending | None, str]:
        """Give the trainer its task, and take its messages.

        Returns the ending that its last message states and "", or None and the reason for which it must be killed. The
        reason is empty if the trainer closed its link.
        """
        limit_s = self._patience.hello_s
        try:
            async with awake_time.timeout(limit_s):
                await process.link.receive()
            limit_s = self._patience.silence_s
            async with awake_time.timeout(limit_s):
                await process.link.send(self._start)
            if self._stop_wanted:
                return None, "it was stopped before it started to train"
            self._has_task = True
            while True:
                async with awake_time.timeout(limit_s):
                    message = await process.link.receive()
                await self._reports.take(message)
                if isinstance(message, TrainingEnded):
                    reason, text, hint = message.reason, message.message, message.hint
                    return Ending(outcome=message.outcome, reason=reason, message=text, hint=hint), ""
        except LinkClosed:
            return None, ""
        except MessageTooLarge as error:
            return Ending(outcome="failed", reason=error.reason, message=error.message, hint=TOO_LARGE_HINT), ""
        except LinkCorrupt as error:
            log.error(
                "trainer sent an invalid message", extra={"train_job": self._start.train_job, "error": str(error)}
            )
            return None, "it sent an invalid message"
        except TimeoutError:
            self._stalled = self._has_task
            return None, f"it was silent for {limit_s:g} seconds"
        except Stalled as error:
            self._stalled = True
            return None, str(error)

    def _death(self, exit_words: str, why: str, stderr_tail: str, *, reason: str = "", hint: str = "") -> Ending:
        """Return the ending of a trainer that died, and log the death.

        What the process printed may hold paths, so it goes to the operator's log alone.
        """
        if self._stop_wanted:
            return Ending(outcome="stopped", message=self._cut_off_message)
        tasks = self._process.notes.read() if self._process else ()
        if self._slow:
            tasks, reason = tuple(slow.note for slow in self._slow), TOO_SLOW
            spent = [f"{slow.cpu_s:.0f} CPU seconds on decoding image {slow.note.item:016x}" for slow in self._slow]
            why = f"it spent {' and '.join(spent)}"
        error_id = uuid.uuid4().hex[:12]
        known = {"train_job": self._start.train_job, "attempt": self._start.attempt, "error_id": error_id}
        log.error("trainer died", extra={**known, "exit": exit_words, "why": why, "stderr": stderr_tail})
        words = "; ".join(part for part in (why, "" if why else exit_words) if part)
        message = f"the trainer died: {words} (error {error_id} in the server's log)"
        reason = reason or ("STALLED" if self._stalled else "TRAINER_DIED" if self._has_task else "WORKER_START")
        return Ending(outcome="died", reason=reason, message=message, hint=hint, tasks=tasks)
