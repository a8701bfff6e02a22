"""Callers are bounded, and only what happens in the measured time counts."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from benchmarks.peers.load import (
    Level,
    Load,
    Recorder,
    Spent,
    call_in_tasks,
    call_in_threads,
    figures,
    first_images,
    lowest_cosine,
    percentile,
    run,
)
from benchmarks.peers.plan import STUBS

from benchmarks.peers import callers

LEVEL = Level(callers=3, warm_up_s=0.05, measured_s=0.2)
ROW = np.ones(2, np.float32)


def spent(at: float, server_s: float, client_s: float, machine_s: float) -> Spent:
    return Spent(at=at, server_s=server_s, client_s=client_s, machine_s=machine_s)


def test_figures_are_of_the_calls_that_ended_in_the_measured_time() -> None:
    recorder = Recorder()
    recorder.calls_s = [(0.0, 0.5), (0.5, 1.5), (1.0, 1.2), (1.9, 2.5), (2.9, 3.1)]
    recorder.errors = [(0.9, "early"), (2.0, "first"), (2.1, "second")]
    found = figures(LEVEL, recorder, spent(1.0, 10.0, 5.0, 20.0), spent(3.0, 11.5, 5.3, 22.4))
    assert found == {
        "callers": 3,
        "images_per_second": 1.5,
        "p50_ms": 600.0,
        "p99_ms": 992.0,
        "server_cpu_ms": 500.0,
        "client_cpu_ms": 100.0,
        "others": 0.3,
        "calls": 3,
        "errors": 2,
        "first_error": "first",
    }


def test_percentiles_are_interpolated_and_none_of_nothing() -> None:
    assert percentile([float(ms) for ms in range(101)], 99) == 99.0
    assert percentile([1.0, 2.0], 50) == 1.5
    assert percentile([], 50) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"callers": 0}, "callers must be 1 to 256, not 0"),
        ({"callers": 257}, "callers must be 1 to 256, not 257"),
        ({"warm_up_s": 0.0}, "warm_up_s must be more than 0 and at most 60, not 0.0"),
        ({"measured_s": 61.0}, "measured_s must be more than 0 and at most 60, not 61.0"),
    ],
)
def test_callers_and_time_are_bounded(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Level(**{"callers": 1, "warm_up_s": 1.0, "measured_s": 1.0, **change})  # type: ignore[arg-type]


class Server:
    """A function in the place of a server. It notes how many calls overlap, and fails once."""

    def __init__(self) -> None:
        self.most = self._now = 0
        self._failed = False
        self._lock = threading.Lock()

    def enter(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def leave(self) -> None:
        with self._lock:
            self._now -= 1
            if self.most == LEVEL.callers and not self._failed:
                self._failed = True
                raise RuntimeError("once")


def test_threads_call_one_at_a_time_each_and_go_on_after_an_error() -> None:
    server = Server()

    def embed(jpeg: bytes) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        server.enter()
        time.sleep(0.01)
        server.leave()
        return ROW

    found = call_in_threads(embed, [b"a", b"b"], LEVEL, os.getpid())
    assert server.most == 3
    assert found["calls"] > 3


def test_tasks_call_one_at_a_time_each_and_go_on_after_an_error() -> None:
    server = Server()

    async def embed(jpeg: bytes) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        server.enter()
        await asyncio.sleep(0.01)
        server.leave()
        return ROW

    found = asyncio.run(call_in_tasks(embed, [b"a"], LEVEL, os.getpid()))
    assert server.most == 3
    assert found["calls"] > 3


def test_a_load_travels_as_json() -> None:
    load = Load(side="ray", address="127.0.0.1:1", model="m", server_pid=7, images="a", expected="b", levels=[LEVEL])
    assert Load.from_json(load.to_json()) == load


def test_stubs_call_the_model_by_its_whole_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = []

    @asynccontextmanager
    async def stubs(_address: str, model: str) -> AsyncIterator[Callable[[bytes], Awaitable[object]]]:
        models.append(model)
        yield lambda _: asyncio.sleep(0, ROW)

    monkeypatch.setattr(callers, "stubs", stubs)
    (tmp_path / "a.jpg").write_bytes(b"a")
    np.save(tmp_path / "rows.npy", ROW[None])
    rows = str(tmp_path / "rows.npy")
    found = run(Load(side=STUBS, address="here", model="m", server_pid=1, images=str(tmp_path), expected=rows))
    assert models == ["trainJobs/m"]
    assert found == {"lowest_cosine": pytest.approx(1.0), "levels": []}


def test_the_lowest_cosine_shows_a_wrong_row() -> None:
    expected = np.array([[1, 0], [0, 1]], np.float32)
    assert lowest_cosine([expected[0], 3 * expected[1]], expected) == 1.0
    assert lowest_cosine([expected[0], expected[0]], expected) == 0.0


def test_the_same_images_are_taken_each_time(tmp_path: Path) -> None:
    for name in range(10):
        (tmp_path / f"{name}.jpg").write_bytes(bytes([name]))
    assert first_images(tmp_path, 5) == [bytes([name]) for name in (0, 2, 4, 6, 8)]
    assert len(first_images(tmp_path)) == 10
