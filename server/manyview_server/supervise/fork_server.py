"""The fork server, as the front sees it: a process that has imported torch, and forks workers in milliseconds.

It starts with the first worker, or when `warm_up` is called, and again after a death. Whatever is wrong with it, a
worker is then started as a program instead, which takes seconds and is otherwise the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import socket
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from manyview_server.link.fork_requests import (
    EXIT_UNFIT,
    MAX_PACKET_BYTES,
    ForkAnswer,
    ForkRequest,
    WorkerDescriptors,
    parse_answer,
    send_request,
    socket_pair,
)
from manyview_server.link.frames import LinkClosed, LinkCorrupt
from manyview_server.supervise.process import WORKER_COMMAND, CannotFork, WorkerProcess, describe_exit, end, reap
from manyview_server.supervise.restart_delay import restart_delay_s
from manyview_server.system import awake_time
from manyview_server.system.host_memory import host_memory

log = logging.getLogger(__name__)

PR_SET_CHILD_SUBREAPER = 36
IMPORT_S = 60.0
"""The longest wait for the libraries, and for an answer while it imports more of them."""
MIN_MEMORY_BYTES = 2 << 30
"""Below this, no fork server is kept unless it is asked for: it takes 0.5 GiB."""
RESTART_S = 1.0
RESTART_AT_MOST_S = 300.0


def is_wanted(setting: str) -> bool:
    """Return whether the setting `fork_workers`, "auto", "on" or "off", asks for a fork server on this machine."""
    return setting == "on" or (setting == "auto" and host_memory().limit_bytes >= MIN_MEMORY_BYTES)


@dataclass(frozen=True, slots=True)
class _Running:
    """A process that can fork, and the socket on which it gets its requests."""

    process: WorkerProcess
    control: socket.socket


class ForkServer:
    """Forks workers, one at a time. `close` ends the fork server, but not its workers."""

    def __init__(
        self, num_threads: int, *, command: Sequence[str] = WORKER_COMMAND, restart_s: float = RESTART_S
    ) -> None:
        """`num_threads`: the threads of a trainer. OpenMP keeps the number that it finds when torch is imported."""
        self._num_threads = num_threads
        self._command = command
        self._restart_s = restart_s
        self._start_task: asyncio.Task[_Running] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._turn = asyncio.Lock()
        self._num_deaths = 0  # since the last worker
        self._not_before = 0.0
        self._closed = asyncio.Event()

    async def warm_up(self, after_s: float = 0.0) -> None:
        """Start the process `after_s` from now, and wait until it can fork. Failures are logged."""
        await asyncio.sleep(after_s)
        with contextlib.suppress(CannotFork):
            await self._running()

    async def fork(self, request: ForkRequest, descriptors: WorkerDescriptors) -> int:
        """Return the process id of a new worker, a child of this process. Raises CannotFork."""
        await self._running()
        # The copies outlive a caller that gives up while its worker is being forked.
        copies = descriptors.duplicate()
        exchange = self._spawn(self._exchange(request, copies))
        try:
            return await asyncio.shield(exchange)
        except asyncio.CancelledError:
            exchange.add_done_callback(_end_unwanted)
            raise

    async def close(self) -> None:
        """End the process. From now on, workers are started as programs."""
        self._closed.set()
        if self._start_task:
            self._start_task.cancel()
            await asyncio.wait([self._start_task])
            if not self._start_task.cancelled() and not self._start_task.exception():
                await self._start_task.result().process.stop()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _running(self) -> _Running:
        """Return the process; start it if necessary. The start continues if its caller gives up."""
        if self._closed.is_set() or asyncio.get_running_loop().time() < self._not_before:
            raise CannotFork
        if self._start_task is None:
            self._start_task = asyncio.create_task(self._start())
            self._start_task.add_done_callback(self._started)
        try:
            return await asyncio.shield(self._start_task)
        except asyncio.CancelledError:
            if self._closed.is_set():
                raise CannotFork from None
            raise

    def _started(self, task: asyncio.Task[_Running]) -> None:
        if not task.cancelled() and task.exception():
            self._start_task = None

    async def _start(self) -> _Running:
        ours, theirs = socket_pair()
        with contextlib.ExitStack() as kept:
            kept.callback(ours.close)
            ours.setblocking(False)
            process = None
            try:
                with theirs:
                    process = await WorkerProcess.start(
                        "fork-server",
                        num_threads=self._num_threads,
                        command=self._command,
                        arguments=("--control-fd", str(theirs.fileno())),
                        pass_fds=(theirs.fileno(),),
                        # The threads of OpenBLAS would be lost at a fork. Each worker starts its own.
                        changed_environment={"OPENBLAS_NUM_THREADS": "1"},
                    )
                async with awake_time.timeout(IMPORT_S):
                    await process.link.receive()
            except (OSError, TimeoutError, LinkClosed, LinkCorrupt) as error:
                status = await process.stop() if process else None
                self._died(status, process.stderr_tail if process else repr(error))
                raise CannotFork from error
            except asyncio.CancelledError:
                if process:
                    await process.stop()
                raise
            kept.pop_all()
        self._spawn(self._watch(process, ours))
        return _Running(process, ours)

    async def _watch(self, process: WorkerProcess, control: socket.socket) -> None:
        """Wait for the end of the process, then replace it."""
        status = await process.wait()
        await process.stop()
        _reap_group(process.pid)
        self._start_task = None
        async with self._turn:
            control.close()
        if self._closed.is_set():
            return
        self._died(status, process.stderr_tail)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._not_before):
                await self._closed.wait()
        await self.warm_up()

    def _died(self, status: int | None, stderr: str) -> None:
        known = {"exit": "" if status is None else describe_exit(status), "stderr": stderr}
        if status == EXIT_UNFIT:
            log.error("workers cannot be forked on this machine, and start slowly", extra=known)
            self._closed.set()
            return
        log.warning("the fork server died; until it runs again, workers start slowly", extra=known)
        self._num_deaths += 1
        delay_s = restart_delay_s(self._num_deaths, self._restart_s, RESTART_AT_MOST_S)
        self._not_before = asyncio.get_running_loop().time() + delay_s

    async def _exchange(self, request: ForkRequest, descriptors: WorkerDescriptors) -> int:
        try:
            async with self._turn:
                running = await self._running()
                with reaping_orphans():
                    send_request(running.control, request, descriptors)
                    answer = await _answer(running)
        except OSError as error:
            raise CannotFork from error
        finally:
            descriptors.close()
        if not answer.pid:
            log.warning("a worker could not be forked, and starts slowly: %s", answer.error)
            raise CannotFork
        self._num_deaths = 0
        return answer.pid

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _answer(running: _Running) -> ForkAnswer:
    """Return the answer to a request. A fork server that is silent for too long is killed: then either its last
    worker still answers, or nobody is left who could."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(TimeoutError):
        async with awake_time.timeout(IMPORT_S):
            return parse_answer(await loop.sock_recv(running.control, MAX_PACKET_BYTES))
    running.process.kill()
    return parse_answer(await loop.sock_recv(running.control, MAX_PACKET_BYTES))


@contextlib.contextmanager
def reaping_orphans() -> Iterator[None]:
    """Become the parent of workers whose parent ends. At other times, orphans belong to the init process."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _reap_group(pid: int) -> None:
    """Reap what the fork server left: its group was killed, and a fork may have made members of it our children."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-pid, 0)


def _end_unwanted(exchange: asyncio.Task[int]) -> None:
    if not exchange.cancelled() and not exchange.exception():
        pid = exchange.result()
        end(pid, lambda: reap(pid))
