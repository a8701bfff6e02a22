"""Failing system calls of a process that runs, by `strace`."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

ATTACH_S = 20.0


@contextmanager
def injected(pid: int, calls: str, fault: str, paths: Iterable[Path], log: Path) -> Iterator[None]:
    """While in the block, `calls` of the process on these files meet `fault`: "pwrite64,fdatasync", "error=EIO:when=2".

    Without paths, calls on any file. The count of `when` is each thread's own, and each call's. The calls that were
    seen are in `log` afterwards, with the paths of their files. The process may die.
    """
    only = [word for path in paths for word in ("-P", str(path))]
    command = ["strace", "-f", "-y", "-o", str(log), "-e", f"trace={calls}", "-e", f"inject={calls}:{fault}", *only]
    with subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        line = tracer.stderr.readline()
        assert "attached" in line, line
        try:
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.communicate(timeout=ATTACH_S)
