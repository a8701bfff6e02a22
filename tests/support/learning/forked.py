"""Workers and programs that are forked from one process that has imported torch: importing it takes four seconds.

That process starts with the first fork, and ends with the process of the tests.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from manyview_server.link.fork_requests import (
    MAX_PACKET_BYTES,
    ForkRequest,
    WorkerDescriptors,
    parse_answer,
    send_request,
    socket_pair,
)
from manyview_server.supervise.fork_server import reaping_orphans

START_S = 50.0
PROGRAM = "program"
"""A kind of worker: its argument is run."""

SERVER = """
import os, socket, sys
from manyview_server.worker import __main__ as entry, fork_server
fork_server.IDLE_S = 86400.0  # without the libraries that only some workers need
words = fork_server.serve(socket.socket(fileno=int(sys.argv[1])), lambda: None)
sys.path[1:1] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path not in sys.path]
if words[0] == "program":
    exec(compile(words[-1], "program", "exec"), {"__name__": "program"})
else:
    entry.main(words)
"""


class ForkedProcess:
    """A child of this process, as `Popen` would show it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float = START_S) -> int:
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} still runs after {timeout} s")
            time.sleep(0.005)
        return status

    def kill(self) -> None:
        """Kill the whole group."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait()


def fork(
    kind: str,
    descriptors: WorkerDescriptors,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> ForkedProcess:
    """Fork a worker of this kind with one thread."""
    passive = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    request = ForkRequest(kind=kind, environment={**environment, **passive}, arguments=arguments)
    with reaping_orphans():
        send_request(_server(), request, descriptors)
        answer = parse_answer(_server().recv(MAX_PACKET_BYTES))
    assert answer.pid, answer.error
    return ForkedProcess(answer.pid)


def run(program: str, environment: Mapping[str, str] = os.environ) -> subprocess.CompletedProcess[str]:
    """Run a program in a process that has imported the worker, and return what it printed and its exit status."""
    out, err = (os.memfd_create(name) for name in ("out", "err"))
    with open(out), open(err), open(os.devnull) as nothing:
        descriptors = WorkerDescriptors(link=nothing.fileno(), notes=nothing.fileno(), stdout=out, stderr=err)
        process = fork(PROGRAM, descriptors, (program,), environment)
        try:
            status = process.wait()
        finally:
            process.kill()
        printed = [os.pread(file, os.fstat(file).st_size, 0).decode() for file in (out, err)]
    return subprocess.CompletedProcess(program, status, *printed)


def children() -> list[str]:
    """Return the children of this process, without the one that forks."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [pid for pid in found if int(pid) not in _SERVERS]


_SERVERS: set[int] = set()


@cache
def _server() -> socket.socket:
    ours, theirs = socket_pair()
    ours.settimeout(START_S)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
    _SERVERS.add(process.pid)

    def close() -> None:
        ours.close()
        process.wait()

    atexit.register(close)
    return ours
