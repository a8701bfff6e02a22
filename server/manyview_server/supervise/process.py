"""A worker process: started with one socket pair, watched, and killed together with all its children.

The worker leads a process group of its own. It dies with the front: its entry asks the kernel for a signal at its
parent's death, and it exits when its link ends. The kernel binds that signal to the thread that started the worker, so
start workers from the main thread's event loop. Linux only: the exit is seen through a pidfd.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType
from typing import Protocol

from manyview_server.link import decode_notes
from manyview_server.link.decode_notes import DecodeNotes
from manyview_server.link.fork_requests import ForkRequest, WorkerDescriptors
from manyview_server.link.streams import AsyncLink
from manyview_server.supervise.worker_output import WorkerOutput
from manyview_server.system import awake_time

WORKER_COMMAND: tuple[str, ...] = (sys.executable, "-m", "manyview_server.worker")
"""`KIND --link-fd N --notes-fd M` is appended. Tests put a program of their own here."""

STDERR_TAIL_BYTES = 64 << 10
STDOUT_BYTES = 16 << 20


class CannotFork(Exception):
    """There is no fork server, or it cannot fork: start the worker as a program."""


class Forks(Protocol):
    """Something that forks workers from a process that has imported torch."""

    async def fork(self, request: ForkRequest, descriptors: WorkerDescriptors) -> int:
        """Return the process id of a new worker, a child of this process. Raises CannotFork."""


class WorkerProcess:
    """One worker and the front's end of its link. `start` makes it; `stop` must follow."""

    def __init__(
        self,
        kind: str,
        pid: int,
        wait: Callable[[], int],
        link: AsyncLink,
        outputs: Sequence[WorkerOutput],
        notes: DecodeNotes,
    ) -> None:
        """`wait` reaps the process and returns its exit status, negative for a signal."""
        self.kind = kind
        self.pid = pid
        self.link = link
        self.notes = notes
        """The tasks that its threads are working on, or were working on when it died."""
        self._reap = wait
        self._outputs = outputs
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = os.pidfd_open(pid)
        self._loop.add_reader(self._pidfd, self._on_exit)

    @classmethod
    async def start(
        cls,
        kind: str,
        *,
        num_threads: int,
        command: Sequence[str] = WORKER_COMMAND,
        forks: Forks | None = None,
        arguments: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
        changed_environment: Mapping[str, str] = MappingProxyType({}),
        capture_stdout: bool = False,
    ) -> WorkerProcess:
        """Start `command KIND --link-fd N --notes-fd M arguments…`, or let `forks` fork the same worker at once.

        If it cannot fork, the command is started. See `stderr_tail` and `stdout` for what the worker prints.

        Raises:
            OSError: the program is missing, or the system has no more processes or descriptors.
        """
        with ExitStack() as passed, ExitStack() as kept:
            notes_fd = decode_notes.allocate()
            passed.callback(os.close, notes_fd)
            notes = DecodeNotes(notes_fd)
            ours, theirs = socket.socketpair()
            passed.enter_context(theirs)
            link = await AsyncLink.over(ours)
            kept.callback(link.close)
            outputs = []
            for limit_bytes in (STDERR_TAIL_BYTES, STDOUT_BYTES) if capture_stdout else (STDERR_TAIL_BYTES,):
                outputs.append(WorkerOutput(limit_bytes))
                kept.callback(outputs[-1].close)
            descriptors = WorkerDescriptors(
                link=theirs.fileno(), notes=notes_fd, stdout=outputs[-1].write_fd, stderr=outputs[0].write_fd
            )
            request = ForkRequest(
                kind=kind, environment={**environment(num_threads), **changed_environment}, arguments=arguments
            )
            pid, wait = await _forked(forks, request, descriptors) or _started(command, request, descriptors, pass_fds)
            kept.callback(end, pid, wait)
            process = cls(kind, pid, wait, link, outputs, notes)
            kept.pop_all()
        for output in outputs:
            output.attach()
        return process

    @property
    def running(self) -> bool:
        """True until the process has exited."""
        return not self._exited.done()

    @property
    def stderr_tail(self) -> str:
        """The last 64 kB that the process printed."""
        return self._outputs[0].text

    @property
    def stdout(self) -> str:
        """The text that the process printed on stdout, if that is captured."""
        return self._outputs[1].text

    async def wait(self) -> int:
        """Return the exit status; minus the signal's number if a signal ended it."""
        return await asyncio.shield(self._exited)

    def kill(self) -> None:
        """Send SIGKILL to the whole group at once. A process that has exited is left alone."""
        if self.running:
            _kill_group(self.pid)

    async def dump_stacks(self, wait_s: float = 0.5) -> None:
        """Let a worker that hangs print a stack of each of its threads, for `stderr_tail`."""
        if self.running:
            os.kill(self.pid, signal.SIGUSR1)
            with contextlib.suppress(TimeoutError):
                async with awake_time.timeout(wait_s):
                    await self.wait()

    async def stop(self, grace_s: float = 0.0) -> int:
        """Close the link, wait `grace_s` for the process to exit, then kill it. Return the exit status."""
        self.link.close()
        await asyncio.sleep(0)  # a transport lets go of its socket in the loop's next turn
        try:
            async with awake_time.timeout(grace_s):
                return await self.wait()
        except TimeoutError:
            self.kill()
            return await self.wait()
        except asyncio.CancelledError:
            self.kill()
            raise

    def _on_exit(self) -> None:
        """Kill the rest of the group, then reap the leader. Until then it is a zombie, and nobody else can get the
        number of its group."""
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        _kill_group(self.pid)
        status = self._reap()
        self.notes.detach()
        for output in self._outputs:
            output.drain()
            output.close()
        self._exited.set_result(status)


def environment(num_threads: int) -> dict[str, str]:
    """Return the environment of a worker: ours, with threads that sleep while they wait, and a heap that is kept.

    Without the malloc settings, every large buffer is mapped and faulted in again. What the operator has set stays,
    except the number of threads.
    """
    return {
        "OMP_WAIT_POLICY": "passive",
        # Keep freed memory: fresh pages for each step's tensors cost a fifth of it.
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": "-1",
        "MALLOC_TOP_PAD_": str(256 << 20),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        **os.environ,
        "OMP_NUM_THREADS": str(num_threads),
    }


def describe_exit(status: int) -> str:
    """Return an exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    return signal.Signals(-status).name if -status in signal.valid_signals() else f"signal {-status}"


def reap(pid: int) -> int:
    """Wait for a child that no Popen object knows. Return its exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def _forked(
    forks: Forks | None, request: ForkRequest, descriptors: WorkerDescriptors
) -> tuple[int, Callable[[], int]] | None:
    if forks is None:
        return None
    try:
        pid = await forks.fork(request, descriptors)
    except CannotFork:
        return None
    return pid, lambda: reap(pid)


def _started(
    command: Sequence[str], request: ForkRequest, descriptors: WorkerDescriptors, pass_fds: Sequence[int]
) -> tuple[int, Callable[[], int]]:
    ends = ["--link-fd", str(descriptors.link), "--notes-fd", str(descriptors.notes)]
    popen = subprocess.Popen(
        [*command, request.kind, *ends, *request.arguments],
        stdin=subprocess.DEVNULL,
        stdout=descriptors.stdout,
        stderr=descriptors.stderr,
        pass_fds=(descriptors.link, descriptors.notes, *pass_fds),
        start_new_session=True,
        env=request.environment,
    )
    return popen.pid, popen.wait


def end(pid: int, wait: Callable[[], int]) -> None:
    """End a process that nobody watches yet, with its group, and reap it."""
    _kill_group(pid)
    wait()


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
