"""The watchdog names what keeps the event loop, and is fooled neither by a suspension nor by a busy machine."""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from manyview_server.front.loop_watchdog import LoopWatchdog

ENOUGH_S = 30.0


class Logged(logging.Handler):
    """The watchdog's lines, as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.has_stack = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        if hasattr(record, "stack"):
            self.has_stack.set()

    def warnings(self) -> list[str]:
        """The lines about callbacks that are too long."""
        return [record.getMessage() for record in self.records if record.levelno == logging.WARNING]


@pytest.fixture
def logged() -> Iterator[Logged]:
    handler = Logged()
    logger = logging.getLogger("manyview_server.front.loop_watchdog")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)


def watched(work: Callable[[LoopWatchdog], None], threshold_s: float = 0.1) -> LoopWatchdog:
    """Run one callback on a loop that is watched."""
    watchdog = LoopWatchdog(threshold_s)

    async def run() -> None:
        watchdog.start()
        try:
            await asyncio.sleep(0)
            work(watchdog)
            await asyncio.sleep(0)
        finally:
            watchdog.stop()

    asyncio.run(run())
    return watchdog


def spin(cpu_s: float) -> None:
    end = time.thread_time() + cpu_s
    while time.thread_time() < end:
        pass


def test_a_callback_that_waits_is_logged_with_its_stack_while_it_runs_and_with_its_length_at_its_end(
    logged: Logged,
) -> None:
    def waits_for_the_disk(watchdog: LoopWatchdog) -> None:
        assert logged.has_stack.wait(ENOUGH_S)

    watchdog = watched(waits_for_the_disk)
    during, end = logged.warnings()
    (stack,) = [record.stack for record in logged.records if hasattr(record, "stack")]
    assert "waits_for_the_disk" in stack
    assert "run_until_complete" not in stack
    assert during.startswith("a callback has held the event loop for ")
    assert end.startswith("a callback held the event loop for ")
    assert "run" in watchdog.longest.callback
    assert watchdog.longest.held_s >= 0.1


def test_processor_time_counts_although_the_watchdog_cannot_run_meanwhile(logged: Logged) -> None:
    took_s = []

    def holds_the_interpreter_lock(watchdog: LoopWatchdog) -> None:
        begun = time.thread_time()
        sum(itertools.repeat(1, 40_000_000))  # one call into C, which gives the lock up at its end
        took_s.append(time.thread_time() - begun)

    watchdog = watched(holds_the_interpreter_lock)
    assert watchdog.longest.held_s >= took_s[0]
    assert watchdog.hardest.cpu_s >= took_s[0]
    assert logged.warnings()


def test_short_callbacks_are_not_logged_however_many_there_are(logged: Logged) -> None:
    watchdog = LoopWatchdog(5.0)

    async def run() -> None:
        watchdog.start()
        for _ in range(200):
            spin(0.0005)
            await asyncio.sleep(0)
        watchdog.stop()

    asyncio.run(run())
    assert not logged.warnings()
    assert 0.0005 <= watchdog.hardest.cpu_s < 0.1


def test_of_many_long_callbacks_in_a_row_one_is_logged_and_the_longest_is_kept(logged: Logged) -> None:
    watchdog = LoopWatchdog(0.02)

    async def run() -> None:
        watchdog.start()
        for cpu_s in (0.03, 0.03, 0.09, 0.03):
            spin(cpu_s)
            await asyncio.sleep(0)
        watchdog.stop()

    asyncio.run(run())
    assert 1 <= len(logged.warnings()) <= 2
    assert watchdog.longest.held_s >= 0.09
    last = logged.records[-1].getMessage()
    assert last.startswith("longest callback of the event loop: ")
    assert "run" in last


def test_after_the_end_callbacks_run_as_before() -> None:
    before = asyncio.Handle._run
    watched(lambda _: None)
    assert asyncio.Handle._run is before


SUSPENDED = """
import asyncio, os, signal, sys, time
from manyview_server.front.loop_watchdog import LoopWatchdog

async def main():
    watchdog = LoopWatchdog()
    watchdog.start()
    await asyncio.sleep(0)
    begun = time.monotonic()
    print("now", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)  # in the middle of a callback
    took_s = time.monotonic() - begun
    await asyncio.sleep(0)
    watchdog.stop()
    print(took_s, watchdog.longest.held_s)

asyncio.run(main())
"""


def test_a_process_that_was_stopped_for_a_while_has_had_no_long_callback() -> None:
    with subprocess.Popen([sys.executable, "-c", SUSPENDED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        time.sleep(3)
        process.send_signal(signal.SIGCONT)
        took_s, held_s = map(float, process.stdout.read().split())
    assert took_s > 2
    assert held_s < took_s / 2
