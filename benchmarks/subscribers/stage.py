"""The server and the job of the benchmark: the job trains for ever, and its log is long from the start."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import manyview
from manyview_server.store.event_payloads import Scalars
from manyview_server.store.jobs.job_verbs import PAUSE
from manyview_server.store.records import CheckedImage, NewEvent
from manyview_server.store.store import Store

JOB = "marathon"
ROW = struct.Struct("qd")
"""The last sequence of a commit, and its time."""
NUM_IMAGES, SIDE = 512, 32
CHUNK_EVENTS = 5_000
CONFIG: dict[str, Any] = {
    "method": "simclr",
    "backbone": "resnet9",
    "backbone_width": 0.25,
    "image_size": 32,
    "batch_size": 64,
    "epochs": 100_000,
    "precision": "float32",
    "memory_format": "contiguous",
    "checkpoint_every_epochs": 100_000,
    "evaluation": {"knn_every_epochs": 0},
}
SCALARS = (
    "loss", "gradient_norm", "representation_std", "projection_std", "effective_rank", "alignment", "uniformity",
    "images_per_second", "step_ms", "data_wait_fraction", "learning_rate", "memory_bytes", "skipped_steps",
)  # fmt: skip
"""As many as a step of SimCLR has."""
TICKS_S = 1 / os.sysconf("SC_CLK_TCK")
PATIENCE_S = 120.0


async def prepare(data_dir: Path, *, events: int, log_every_steps: int, paused: bool = False) -> None:
    """Store images, and a job whose log holds `events` events. The next server trains it unless it is paused."""
    store = Store.open(data_dir)
    await store.datasets.create("noise")
    session = await store.uploads.open("noise", "prepared")
    for number, images in enumerate(np.array_split(np.arange(NUM_IMAGES), 8), start=1):
        await session.append(number, [_image(int(index)) for index in images])
    await session.finish(NUM_IMAGES)
    await store.jobs.create(JOB, "noise", "simclr", {**CONFIG, "log_every_steps": log_every_steps}, "prepared")
    if paused:
        await store.jobs.request(JOB, PAUSE)
    draw = np.random.default_rng(1)
    for first in range(0, events, CHUNK_EVENTS):
        values = draw.normal(size=(min(CHUNK_EVENTS, events - first), len(SCALARS))).tolist()
        rows = [NewEvent(payload=Scalars(values=dict(zip(SCALARS, row, strict=True)))) for row in values]
        await store.events.append(JOB, rows)
        await store.events.flush(JOB)
    await store.close()


def _image(number: int) -> CheckedImage:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(file, "PNG")
    data, name = file.getvalue(), f"{number}.png"
    sha256 = hashlib.sha256(data).digest()
    return CheckedImage(data=data, key=name, label="", sha256=sha256, extension="png", width=SIDE, height=SIDE)


class Stage:
    """A server that trains the job. `pinned`: the trainer has core 0, and the server moves to core 1.

    With a `tick_s` above 0 the job is paused, and the server logs its events by itself."""

    def __init__(
        self, folder: Path, *, pinned: bool = False, tick_s: float = 0.0, catalogue: Path | None = None
    ) -> None:
        """`catalogue`: the `catalogue.json` of an earlier server on this machine, which saves the import of torch."""
        self._folder = folder
        if catalogue is not None:
            shutil.copyfile(catalogue, folder / "data" / "catalogue.json")
        served = [sys.executable, "-m", "benchmarks.subscribers.served"]
        command = [*served, str(folder / "commits"), str(tick_s), "serve"]
        options = ["--listen", "127.0.0.1:0", "--data", str(folder / "data"), "--fork-workers", "off"]
        pin = ["taskset", "-c", "0"] if pinned else []
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen([*pin, *command, *options], stdout=subprocess.PIPE, stderr=log)
        assert self._process.stdout is not None
        self.address = json.loads(self._process.stdout.readline())["address"]
        self.pid = self._process.pid
        self.trainer = 0
        if tick_s:
            return
        try:
            self._wait_for_steps()
        except BaseException:
            self.stop()
            raise
        self.trainer = next(pid for pid in children(self.pid) if "trainer" in _command(pid))
        if pinned:
            move(self.pid, 1)

    def _wait_for_steps(self) -> None:
        with manyview.Client(self.address) as client:
            job = client.job(JOB)
            until = time.monotonic() + PATIENCE_S
            while (found := job.refresh()).progress.step < 20:
                if found.is_terminal or time.monotonic() > until:
                    raise SystemExit((self._folder / "log").read_text())
                time.sleep(0.2)

    def newest(self) -> int:
        """Return the sequence of the newest event."""
        with manyview.Client(self.address) as client:
            return client.job(JOB).refresh().last_sequence

    def stop(self) -> None:
        """Kill the server. The kernel kills its workers."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def commits(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the last sequence of each commit and its time."""
        rows = np.array(list(ROW.iter_unpack((self._folder / "commits").read_bytes())))
        return {"last": rows[:, 0], "time": rows[:, 1]}

    def steps(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the times and the steps of all scalars that the trainer sent. The server must be stopped."""

        async def read() -> list[tuple[float, int]]:
            store = Store.open(self._folder / "data")
            found, after = [], 0
            while page := await store.events.read_scalars(JOB, after):
                found += [(event.time, event.step) for event in page if event.step]
                after = page[-1].sequence
            await store.close()
            return found

        rows = np.array(asyncio.run(read()))
        return {"time": rows[:, 0], "step": rows[:, 1]}


def move(pid: int, core: int) -> None:
    """Let all threads of a process run on one core."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), {core})


def children(pid: int) -> list[int]:
    """Return the child processes of all threads of a process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICKS_S


def busy_s() -> float:
    """Return the CPU seconds that all processes of the machine have used."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:7])) * TICKS_S


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
