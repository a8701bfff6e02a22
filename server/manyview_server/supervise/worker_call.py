"""The start and the end of the worker processes behind a call: those that embed, select and preview.

Each of their supervisors has one `WorkerCall`. Which process gets which request, and what a death means for it, is the
supervisor's own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from manyview_server.errors import ServiceError, Unavailable
from manyview_server.link.frames import LinkClosed, LinkCorrupt
from manyview_server.messages.message import Message
from manyview_server.supervise.process import Forks, WorkerProcess, describe_exit
from manyview_server.system import awake_time, open_files

log = logging.getLogger(__name__)


class WorkerCall:
    """Starts and ends processes of one kind. After `close`, call `finish`."""

    def __init__(
        self,
        kind: str,
        command: Sequence[str],
        forks: Forks | None = None,
        *,
        hello_s: float,
        exit_s: float,
        retry_after_s: float,
    ) -> None:
        """`hello_s`: the limit from the start of a process to its first message. `exit_s`: the time that a process has
        to exit by itself. `retry_after_s`: what callers are asked to wait."""
        self.closed = False
        self._kind = kind
        self._command = command
        self._forks = forks
        self._hello_s = hello_s
        self._exit_s = exit_s
        self._retry_after_s = retry_after_s
        self._starting: set[WorkerProcess] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self, num_threads: int, first_message: Callable[[], Message] | None = None) -> WorkerProcess:
        """Start a process, wait for its hello, and send it `first_message()`, if there is one.

        A start that is cancelled leaves no process.

        Raises:
            Unavailable: EMBEDDER_START, SELECTOR_START or PREVIEWER_START, and DRAINING after `close`.
            ResourceExhausted: TOO_MANY_OPEN_FILES.
        """
        self.check_open()
        process = None
        try:
            process = await WorkerProcess.start(
                self._kind, num_threads=num_threads, command=self._command, forks=self._forks
            )
            self._starting.add(process)
            self.check_open()
            async with awake_time.timeout(self._hello_s):
                await process.link.receive()
                if first_message:
                    await process.link.send(first_message())
        except (OSError, TimeoutError, LinkClosed, LinkCorrupt) as error:
            raise await self._not_started(process, error) from error
        except BaseException:
            if process:
                self.kill(process)
            raise
        finally:
            if process:
                self._starting.discard(process)
        return process

    async def died(self, process: WorkerProcess, why: str, **known: object) -> str:
        """Wait for the end of a process that closed its link or was killed, log its death, and return how it exited.

        What the process printed may hold paths, so it goes to the log alone. `known` goes there too. A death after
        `close` is not logged.
        """
        words = describe_exit(await process.stop(self._exit_s))
        if not self.closed:
            known = {**known, "exit": words, "why": why, "stderr": process.stderr_tail}
            log.error("%s died", self._kind, extra=known)
        return words

    def retire(self, process: WorkerProcess) -> None:
        """Let a process that has no work exit, in the background."""
        self.spawn(process.stop(self._exit_s))

    def kill(self, process: WorkerProcess) -> None:
        """Kill a process, and reap it in the background."""
        process.kill()
        self.spawn(process.stop())

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work` in the background. `finish` waits for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def check_open(self) -> None:
        """Raise Unavailable DRAINING after `close`."""
        if self.closed:
            raise self.draining()

    def draining(self) -> Unavailable:
        """The error of requests that are in progress, or come, when the server stops."""
        return Unavailable("DRAINING", "the server is stopping", retry_after_s=self._retry_after_s)

    def close(self) -> None:
        """Start no more processes, and kill those that are starting."""
        self.closed = True
        for process in self._starting:
            process.kill()

    async def finish(self) -> None:
        """Wait until the work in the background is done."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _not_started(self, process: WorkerProcess | None, error: Exception) -> ServiceError:
        """Return the error for callers when `error` came before the end of the start."""
        words = describe_exit(await process.stop()) if process else ""
        if self.closed:
            return self.draining()
        if open_files.are_lacking(error):
            return open_files.too_many(error)
        stderr = process.stderr_tail if process else ""
        log.error("%s cannot be started", self._kind, extra={"error": repr(error), "exit": words, "stderr": stderr})
        text = f"the {self._kind} cannot be started"
        return Unavailable(f"{self._kind.upper()}_START", text, retry_after_s=self._retry_after_s)
