"""A worker process: started with one socketpair, watched, killed with all its children, and nothing of it left behind.

The worker leads a process group of its own. It dies with the front: its entry asks the kernel for a signal at its
parent's death (bound to the thread that started it, so start workers from the main thread's event loop), and it
exits when its link ends. Linux only: the exit is seen through a pidfd.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from manyview_server.link import decode_notes
from manyview_server.link.decode_notes import DecodeNotes
from manyview_server.link.streams import AsyncLink
from manyview_server.system import awake_time

WORKER_COMMAND: tuple[str, ...] = (sys.executable, "-m", "manyview_server.worker")
"""`KIND --link-fd N --notes-fd M` is appended. Tests put a program of their own here."""

STDERR_TAIL_BYTES = 64 << 10
STDOUT_BYTES = 16 << 20


class WorkerProcess:
    """One worker and the front's end of its link. `start` makes it; `stop` must follow."""

    def __init__(
        self,
        kind: str,
        popen: subprocess.Popen[bytes],
        link: AsyncLink,
        outputs: Sequence[Output],
        notes: DecodeNotes,
    ) -> None:
        self.kind = kind
        self.notes = notes
        """The tasks that its threads are working on, or were working on when it died."""
        self.pid = popen.pid
        self.link = link
        self._popen = popen
        self._outputs = outputs
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = os.pidfd_open(popen.pid)
        self._loop.add_reader(self._pidfd, self._on_exit)

    @classmethod
    async def start(
        cls,
        kind: str,
        *,
        num_threads: int,
        command: Sequence[str] = WORKER_COMMAND,
        arguments: Sequence[str] = (),
        capture_stdout: bool = False,
    ) -> WorkerProcess:
        """Start `command KIND --link-fd N --notes-fd M arguments…`.

        What it prints is kept, see `stderr_tail` and `stdout`.

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
                outputs.append(Output(limit_bytes))
                kept.callback(outputs[-1].close)
            popen = subprocess.Popen(
                [*command, kind, "--link-fd", str(theirs.fileno()), "--notes-fd", str(notes_fd), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=outputs[-1].write_fd,
                stderr=outputs[0].write_fd,
                pass_fds=(theirs.fileno(), notes_fd),
                start_new_session=True,
                env=environment(num_threads),
            )
            kept.callback(_kill, popen)
            process = cls(kind, popen, link, outputs, notes)
            kept.pop_all()
        for output in outputs:
            output.attach()
        return process

    @property
    def running(self) -> bool:
        """Is the process still running?"""
        return not self._exited.done()

    @property
    def stderr_tail(self) -> str:
        """The last 64 kB that it printed."""
        return self._outputs[0].text

    @property
    def stdout(self) -> str:
        """The text that the process printed on stdout, if that is captured."""
        return self._outputs[1].text

    async def wait(self) -> int:
        """The exit status; minus the signal's number where a signal ended it."""
        return await asyncio.shield(self._exited)

    def kill(self) -> None:
        """SIGKILL to the whole group, at once. A process that has exited is left alone."""
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
        """Close the link, wait `grace_s` for the process to exit, then kill it. Gives the exit status."""
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
        """The leader is a zombie still, so that nobody else can have its group's number: kill the rest, then reap."""
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        _kill_group(self.pid)
        status = self._popen.wait()
        self.notes.detach()
        for output in self._outputs:
            output.drain()
            output.close()
        self._exited.set_result(status)


class Output:
    """The last `limit_bytes` of what a process prints, read from a pipe as it comes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._data = bytearray()
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        self._open = {self._read_fd, self.write_fd}

    @property
    def text(self) -> str:
        """The end of the printed text that is kept."""
        return self._data.decode(errors="replace")

    def attach(self) -> None:
        """Close our end of the pipe, which the process has now, and start to read."""
        self._close(self.write_fd)
        asyncio.get_running_loop().add_reader(self._read_fd, self._read)

    def drain(self) -> None:
        """Read what is left in the pipe. A child that escaped the group may hold it open: do not wait for its end."""
        while self._read_fd in self._open and self._read():
            pass

    def close(self) -> None:
        """Close the pipe."""
        self._close(self.write_fd)
        self._close(self._read_fd)

    def _read(self) -> bool:
        try:
            chunk = os.read(self._read_fd, 64 << 10)
        except BlockingIOError:
            return False
        if not chunk:
            self._close(self._read_fd)
            return False
        self._data += chunk
        del self._data[: -self._limit_bytes]
        return True

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.remove(fd)
            if fd == self._read_fd:
                asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)


def environment(num_threads: int) -> dict[str, str]:
    """The worker's environment: ours, with threads that sleep while they wait, and a heap that is kept.

    Without the malloc settings, every large buffer is mapped and faulted in again. Settings of the operator stay,
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
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name if -status in signal.valid_signals() else f"signal {-status}"
    return name


def _kill(popen: subprocess.Popen[bytes]) -> None:
    """End a process that nobody watches yet, with its group, and reap it."""
    _kill_group(popen.pid)
    popen.wait()


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
