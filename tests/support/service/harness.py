"""Tools for tests of whole processes: a server process that can be killed and started again, images, a job."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

import manyview
from support.service import scripted_server

START_TIMEOUT_S = 40.0
STOP_TIMEOUT_S = 20.0
CATALOGUE = "catalogue.json"
"""Its name in a data directory."""
NO_FORK_SERVER = ("--fork-workers", "off")
"""Pass this to a server that starts at most one worker, because a fork server imports torch, which takes seconds."""


class ServerProcess:
    """`manyview-server serve` as a child process on a port that stays the same over restarts."""

    logs: ClassVar[list[Path]] = []
    """The logs of all servers of this process."""

    def __init__(
        self,
        data_dir: Path,
        *arguments: str,
        catalogue: Path | None = None,
        workers: dict[str, Any] | None = None,
        one_core: bool = False,
        measure_steps: bool = False,
    ) -> None:
        """Prepare a server; `start` starts it.

        Args:
            catalogue: a file through which servers share what describing the torch side gave the first of them.
            workers: the script of scripted workers, which need no torch; None for the real workers.
            one_core: let the server take this machine for one with a single core. Its workers then have one thread
                for torch each: for tiny networks, threads that wait for one another double the CPU time.
            measure_steps: let the server measure a step of each new configuration, as it does by default. Without that,
                settings that are left open are as by default.
        """
        self.one_core = one_core
        self.measure_steps = measure_steps
        self.data_dir = data_dir
        self.program = (
            [sys.executable, "-m", "manyview_server"] if workers is None else scripted_server.command(workers)
        )
        self.catalogue = catalogue
        self.arguments = arguments
        self.mark = f"run-{uuid.uuid4().hex}"
        self.address = f"127.0.0.1:{free_port()}"
        self.log = data_dir.with_suffix(".log")
        self.logs.append(self.log)
        self.process: subprocess.Popen[bytes] | None = None
        self._seen: dict[int, str] = {}

    def start(self) -> float:
        """Start, wait for the line that says it serves, and return how many seconds that took."""
        if self.catalogue and self.catalogue.exists() and not (self.data_dir / CATALOGUE).exists():
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copyfile(self.catalogue, self.data_dir / CATALOGUE)
            # The server syncs its own catalogue, too, so a power cut takes neither.
            for path in (self.data_dir / CATALOGUE, self.data_dir):
                _sync(path)
        began = time.monotonic()
        command = [*self.program, "serve", "--listen", self.address]
        environment = os.environ | {
            "MANYVIEW_TEST_MARK": self.mark,
            "OMP_NUM_THREADS": "1",
            "MANYVIEW_SERVER_MEASURE_STEPS": str(self.measure_steps).lower(),
        }
        cores = sorted(os.sched_getaffinity(0))
        first = [cores[os.getpid() % len(cores)]] if self.one_core else cores
        with self.log.open("ab") as log, _affinity(first):
            self.process = subprocess.Popen(
                [*command, "--data", str(self.data_dir), *self.arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the server did not start:\n{self.log.read_text()[-4000:]}"
        assert json.loads(line)["event"] == "serving"
        if self.one_core:  # It has counted its cores. From here on it may run on any.
            _let_run_on(cores, self.process.pid)
        if self.catalogue and not self.catalogue.exists():
            shutil.copyfile(self.data_dir / CATALOGUE, self.catalogue)
        return time.monotonic() - began

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        assert self.process is not None
        self.processes()
        self.process.kill()
        self._reap()

    def died(self) -> bool:
        """Was it started, and did it end without a request?"""
        if self.process is None or self.process.poll() is None:
            return False
        self._reap()
        return True

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.process is None or self.process.poll() is not None:
            return 0
        self.terminate()
        return self.ended()

    def terminate(self) -> None:
        """SIGTERM, without waiting. The second one ends a server at once."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """Wait for its end; the exit status."""
        assert self.process is not None
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_TIMEOUT_S)
            return self._reap()
        self.process.kill()
        self._reap()
        raise AssertionError(f"the server did not end within {STOP_TIMEOUT_S} s of SIGTERM")

    def client(self) -> manyview.Client:
        """A client of this server."""
        return manyview.Client(self.address)

    def workers(self, kind: str) -> list[int]:
        """Process ids of the running workers of a kind: "trainer" or "embedder"."""
        return [pid for pid in self.processes() if kind in _words(pid)]

    def is_gone(self) -> bool:
        """Has every process of this server ended?"""
        return not self.processes()

    def processes(self) -> list[int]:
        """Every process that descends from this server, dead parents or not.

        They are known by their environment. A process that dies loses that first, and its files only after its memory
        is torn down: every process that was seen once is watched to the very end.
        """
        mark = f"MANYVIEW_TEST_MARK={self.mark}".encode()
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    self._seen[int(entry.name)] = _birth(int(entry.name))
        self._seen = {pid: birth for pid, birth in self._seen.items() if birth and _birth(pid) == birth}
        return list(self._seen)

    def _reap(self) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(STOP_TIMEOUT_S)


@contextmanager
def _affinity(cores: Iterable[int]) -> Iterator[None]:
    """Let this thread, and the processes that it starts, run on these cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _let_run_on(cores: Iterable[int], pid: int) -> None:
    """Let every thread of a process, which may have died, run on these cores."""
    with suppress(FileNotFoundError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), cores)


def free_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def _birth(pid: int) -> str:
    """When a process was started, in the kernel's ticks; "" once it has ended with all its threads, reaped or not."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    num_threads, birth = fields[16], fields[18]
    return "" if state in "ZX" and int(num_threads) <= 1 else birth


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return []


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 30.0, every_s: float = 0.02) -> None:
    """Poll until `condition` holds; fail naming `what` after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what}"
        time.sleep(every_s)


def write_photos(folder: Path, count: int, *, seed: int, side: int = 24, classes: int = 4) -> list[Path]:
    """Small JPEG files, all different, in a folder for each class. A class is a hue and a stripe's direction."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0:side]
    paths = []
    for index in range(count):
        kind = index % classes
        stripes = np.sin((rows if kind % 2 else columns) / (1.5 + kind) + random.uniform(0, 6))
        color = np.eye(3)[kind % 3] * 0.6 + 0.4
        pixels = (stripes[..., None] * 0.5 + 0.5) * color + random.normal(0, 0.05, (side, side, 3))
        path = folder / f"class{kind}" / f"{index:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8)).save(path, quality=90)
        paths.append(path)
    return sorted(paths)


def jpeg(side: int = 24, seed: int = 0) -> bytes:
    """One JPEG file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


SMALL_JOB: dict[str, Any] = {
    "backbone": "resnet9",
    "backbone_width": 0.125,
    "image_size": 16,
    "batch_size": 16,
    "memory_bank_size": 32,
    "log_every_steps": 1,
    "precision": "float32",
    "memory_format": "channels_last",
    "checkpoint_every_epochs": 2,
    "evaluation": {"knn_every_epochs": 4},
}
"""A job of which a step takes milliseconds, and of which nothing depends on the clock."""
