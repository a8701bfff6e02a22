"""The phases of one job, which take turns: nobody listens, everybody is live, everybody replays."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.subscribers.stage import JOB, Stage, busy_s, cpu_s, rss_mib

SETTLE_S = 1.5
WINDOW_S = 12.0
REPLAY_LIVE = 20
"""The live subscribers beside those that replay."""
SPIN = "while True: pass"


@dataclass(kw_only=True)
class Window:
    """CPU seconds by process between two moments. The steps are counted for the same span."""

    kind: str
    began: float
    ended: float = 0.0
    trainer_s: float = 0.0
    front_s: float = 0.0
    crowd_s: float = 0.0
    others_cores: float = 0.0
    """The cores that processes beside these kept busy on average."""
    front_mib: float = 0.0
    """The most resident memory of the server's own process."""


class Recorder:
    """Measures windows of one stage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.windows: list[Window] = []

    def record(self, kind: str, seconds: float, crowd: int = 0) -> Window:
        """Wait, and return what the processes used. `crowd` is the process of the subscribers."""
        window = Window(kind=kind, began=time.time())
        before, busy = self._used(crowd), busy_s()
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            window.front_mib = max(window.front_mib, rss_mib(self._stage.pid))
            time.sleep(min(0.5, left))
        used = [after - first for after, first in zip(self._used(crowd), before, strict=True)]
        window.ended = time.time()
        window.trainer_s, window.front_s, window.crowd_s = used
        window.others_cores = (busy_s() - busy - sum(used)) / (window.ended - window.began)
        self.windows.append(window)
        return window

    def _used(self, crowd: int) -> list[float]:
        return [cpu_s(pid) if pid else 0.0 for pid in (self._stage.trainer, self._stage.pid, crowd)]


class Phases:
    """The phases of one stage, with their windows and the arrivals of live events."""

    def __init__(self, stage: Stage, folder: Path, *, subscribers: int, pinned: bool, window_s: float) -> None:
        self._stage = stage
        self._folder = folder
        self._subscribers = subscribers
        self._pinned = pinned
        self._window_s = window_s
        self._recorder = Recorder(stage)
        self.seen: list[dict[str, Any]] = []
        self._arrivals: list[tuple[str, np.ndarray[Any, Any]]] = []

    def silent(self) -> None:
        """Nobody listens."""
        time.sleep(SETTLE_S)
        self._recorder.record("nobody", self._window_s)

    def spin(self) -> None:
        """A loop keeps the server's core busy: what the trainer loses to the hardware alone."""
        pin = ["taskset", "-c", "1"] if self._pinned else ["nice", "-n", "0"]
        process = subprocess.Popen([*pin, sys.executable, "-c", SPIN])
        try:
            time.sleep(SETTLE_S)
            self._recorder.record("a loop on the other core", self._window_s, process.pid)
        finally:
            process.kill()
            process.wait()

    def live(self) -> None:
        """All subscribers follow the newest events."""
        self._crowd("live", live=self._subscribers, replay=0)

    def replay(self) -> None:
        """All subscribers begin at the first event, and a few others follow live."""
        self._crowd("replay", live=REPLAY_LIVE, replay=self._subscribers)

    def _crowd(self, kind: str, *, live: int, replay: int) -> None:
        file = self._folder / f"arrivals-{len(self.seen)}.npy"
        command = [sys.executable, "-m", "benchmarks.subscribers.crowd", self._stage.address, f"trainJobs/{JOB}"]
        pin = ["taskset", "-c", "1"] if self._pinned else []
        options = [str(file), "--live", str(live), "--replay", str(replay)]
        with subprocess.Popen([*pin, *command, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()
            process.stdin.write(f"{self._stage.newest()}\n".encode())
            process.stdin.flush()
            if not replay:
                time.sleep(SETTLE_S)
            window = self._recorder.record(kind, self._window_s, process.pid)
            process.stdin.write(b"\n")
            process.stdin.flush()
            answer = process.stdout.read()
        rows = np.load(file)
        rows = rows[(rows[:, 2] >= window.began) & (rows[:, 2] <= window.ended)]
        seen = {"kind": kind, "live_messages": len(rows), **json.loads(answer)}
        self._arrivals.append((kind, rows))
        self.seen.append(seen)

    def values(self) -> dict[str, Any]:
        """Return all windows with their steps, and the latencies of each kind. The server must be stopped."""
        steps = self._stage.steps() if self._stage.trainer else {"time": np.zeros(1), "step": np.zeros(1)}
        windows = []
        for window in self._recorder.windows:
            first, last = np.interp([window.began, window.ended], steps["time"], steps["step"])
            windows.append({**asdict(window), "steps": float(last - first)})
        commits = self._stage.commits()
        latency = {}
        for kind in {kind for kind, _ in self._arrivals}:
            rows = np.concatenate([rows for of, rows in self._arrivals if of == kind])
            late = latencies_ms(rows, commits["last"], commits["time"])
            latency[kind] = {
                "events": len(late),
                **{f"p{q:g}_ms": float(np.percentile(late, q)) for q in (50, 99, 99.9, 100)},
            }
        return {"windows": windows, "latency": latency, "seen": self.seen}


def latencies_ms(
    rows: np.ndarray[Any, Any], last: np.ndarray[Any, Any], times: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Return the milliseconds from the commit of each event to its arrival.

    Args:
        rows: first sequence, last sequence and time of each message that arrived.
        last: the last sequence of each commit, rising. times: its time.
    """
    firsts, lasts = rows[:, 0].astype(int), rows[:, 1].astype(int)
    counts = lasts - firsts + 1
    arrived = np.repeat(rows[:, 2], counts)
    starts = np.repeat(firsts, counts)
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(1000 * (arrived - times[np.searchsorted(last, starts + offsets)]))
