"""Call a server from a fixed number of callers, each of which sends its next image once it has an answer.

It is a process of its own, so that its CPU seconds are not the server's. It reads a `Load` in JSON from its argument,
and prints a line of JSON: the lowest cosine between the first rows and those that are expected, and the figures of each
number of callers. Callers and time are bounded, and each call has a deadline.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.peers.callers import Asynchronous, Blocking
from benchmarks.peers.plan import MANYVIEW, STUBS
from benchmarks.peers.usage import machine_cpu_s, tree_cpu_s

from benchmarks.peers import callers

MAX_CALLERS = 256
MAX_S = 60.0
PAUSE_AFTER_ERROR_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Level:
    """A number of callers, and how long they call before and during the measurement."""

    callers: int
    warm_up_s: float
    measured_s: float

    def __post_init__(self) -> None:
        if not 1 <= self.callers <= MAX_CALLERS:
            raise ValueError(f"callers must be 1 to {MAX_CALLERS}, not {self.callers}")
        for name in ("warm_up_s", "measured_s"):
            if not 0 < getattr(self, name) <= MAX_S:
                raise ValueError(f"{name} must be more than 0 and at most {MAX_S:g}, not {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Load:
    """The task of a process of this program."""

    side: str
    address: str
    model: str
    """The name of the model, for manyview."""
    server_pid: int
    images: str
    """A folder of JPEG files."""
    expected: str
    """A file of rows (N, D), those of the first N images."""
    levels: list[Level] = field(default_factory=list)

    @classmethod
    def from_json(cls, text: str) -> Load:
        """Return the load that `to_json` described."""
        values = json.loads(text)
        return cls(**{**values, "levels": [Level(**level) for level in values["levels"]]})

    def to_json(self) -> str:
        """Return a description of this load."""
        return json.dumps(asdict(self))


class Recorder:
    """The calls that ended in the measured time. Its lists are appended to by many threads, which is safe."""

    def __init__(self) -> None:
        self.calls_s: list[tuple[float, float]] = []
        self.errors: list[tuple[float, str]] = []
        self.stops = False

    def call(self, began: float) -> None:
        """Note that a call has been answered."""
        self.calls_s.append((began, time.perf_counter()))

    def error(self, error: Exception) -> None:
        """Note that a call has failed."""
        self.errors.append((time.perf_counter(), repr(error)[:300]))


@dataclass(frozen=True, kw_only=True)
class Spent:
    """A moment, with the CPU seconds until then."""

    at: float
    server_s: float
    client_s: float
    machine_s: float

    @classmethod
    def now(cls, server_pid: int) -> Spent:
        """Return this moment."""
        server_s, machine_s = tree_cpu_s(server_pid), machine_cpu_s()
        return cls(at=time.perf_counter(), server_s=server_s, client_s=time.process_time(), machine_s=machine_s)


def figures(level: Level, recorder: Recorder, before: Spent, after: Spent) -> dict[str, Any]:
    """Return the figures of a level: of calls that ended between two moments, whenever they began."""
    ms = [1e3 * (end - began) for began, end in recorder.calls_s if before.at <= end <= after.at]
    errors = [text for at, text in recorder.errors if before.at <= at <= after.at]
    wall_s = after.at - before.at
    server_s, client_s = after.server_s - before.server_s, after.client_s - before.client_s
    others_s = after.machine_s - before.machine_s - server_s - client_s
    return {
        "callers": level.callers,
        "images_per_second": round(len(ms) / wall_s, 2),
        "p50_ms": percentile(ms, 50),
        "p99_ms": percentile(ms, 99),
        "server_cpu_ms": round(1e3 * server_s / max(1, len(ms)), 2),
        "client_cpu_ms": round(1e3 * client_s / max(1, len(ms)), 2),
        "others": round(max(0.0, others_s / wall_s), 2),
        "calls": len(ms),
        "errors": len(errors),
        "first_error": errors[0] if errors else "",
    }


def percentile(ms: list[float], percent: float) -> float | None:
    """Return a percentile, or None of no calls."""
    return round(float(np.percentile(ms, percent)), 2) if ms else None


def call_in_threads(embed: Blocking, jpegs: list[bytes], level: Level, server_pid: int) -> dict[str, Any]:
    """Measure a level with a thread for each caller."""
    recorder = Recorder()

    def work(at: int) -> None:
        while not recorder.stops:
            began = time.perf_counter()
            try:
                embed(jpegs[at % len(jpegs)])
                recorder.call(began)
            except Exception as error:
                recorder.error(error)
                time.sleep(PAUSE_AFTER_ERROR_S)
            at += level.callers

    threads = [threading.Thread(target=work, args=(at,), daemon=True) for at in range(level.callers)]
    for thread in threads:
        thread.start()
    time.sleep(level.warm_up_s)
    before = Spent.now(server_pid)
    time.sleep(level.measured_s)
    after = Spent.now(server_pid)
    recorder.stops = True
    for thread in threads:
        thread.join(callers.TIMEOUT_S)
    return figures(level, recorder, before, after)


async def call_in_tasks(embed: Asynchronous, jpegs: list[bytes], level: Level, server_pid: int) -> dict[str, Any]:
    """Measure a level with a task for each caller."""
    recorder = Recorder()

    async def work(at: int) -> None:
        while not recorder.stops:
            began = time.perf_counter()
            try:
                await embed(jpegs[at % len(jpegs)])
                recorder.call(began)
            except Exception as error:
                recorder.error(error)
                await asyncio.sleep(PAUSE_AFTER_ERROR_S)
            at += level.callers

    tasks = [asyncio.create_task(work(at)) for at in range(level.callers)]
    await asyncio.sleep(level.warm_up_s)
    before = Spent.now(server_pid)
    await asyncio.sleep(level.measured_s)
    after = Spent.now(server_pid)
    recorder.stops = True
    await asyncio.gather(*tasks)
    return figures(level, recorder, before, after)


def lowest_cosine(found: list[callers.Row], expected: np.ndarray[Any, Any]) -> float:
    """Return the lowest cosine between rows and those that are expected."""
    rows = np.stack(found)
    products = (rows * expected).sum(1)
    return float((products / np.linalg.norm(rows, axis=1) / np.linalg.norm(expected, axis=1)).min())


def first_images(folder: Path, count: int = 512) -> list[bytes]:
    """Return JPEG files, spread over a folder in the same way at each call."""
    paths = sorted(folder.rglob("*.jpg"))
    return [path.read_bytes() for path in paths[:: max(1, len(paths) // count)][:count]]


def run(load: Load) -> dict[str, Any]:
    """Measure all levels."""
    jpegs, expected = first_images(Path(load.images)), np.load(load.expected)
    if load.side == MANYVIEW:
        with callers.manyview_client(load.address, load.model) as embed:
            cosine = lowest_cosine([embed(jpeg) for jpeg in jpegs[: len(expected)]], expected)
            levels = [call_in_threads(embed, jpegs, level, load.server_pid) for level in load.levels]
        return {"lowest_cosine": cosine, "levels": levels}
    connect: Callable[[], AbstractAsyncContextManager[Asynchronous]] = (
        (lambda: callers.stubs(load.address, f"trainJobs/{load.model}"))
        if load.side == STUBS
        else (lambda: callers.http(load.side, load.address))
    )

    async def measure() -> dict[str, Any]:
        async with connect() as embed:
            cosine = lowest_cosine([await embed(jpeg) for jpeg in jpegs[: len(expected)]], expected)
            levels = [await call_in_tasks(embed, jpegs, level, load.server_pid) for level in load.levels]
        return {"lowest_cosine": cosine, "levels": levels}

    return asyncio.run(measure())


if __name__ == "__main__":
    print(json.dumps(run(Load.from_json(sys.argv[1]))))
