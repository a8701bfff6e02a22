"""Limits on waiting, and what becomes of them while the process is suspended."""

import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

import manyview
from manyview._transport.deadline import LATE_READ_S, Deadline, take
from manyview.testing import FakeServer


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Inbox:
    """A queue whose waits take the seconds that a test gives, and which then holds what the test gives."""

    def __init__(self, clock: Clock, *waits: tuple[float, str | None]) -> None:
        self._clock = clock
        self._waits = [*waits]
        self.timeouts: list[float | None] = []

    def get(self, *, timeout: float | None) -> str:
        self.timeouts.append(timeout)
        took_s, item = self._waits.pop(0)
        self._clock.now_s += took_s
        if item is None:
            raise queue.Empty
        return item


def test_a_deadline_counts_down_to_nothing() -> None:
    clock = Clock()
    deadline = Deadline(10, clock=clock)
    clock.now_s += 4
    assert deadline.left_s() == 6
    clock.now_s += 6.5
    assert deadline.left_s() == 0
    assert Deadline(None, clock=clock).left_s() is None


def test_a_process_that_slept_over_its_deadline_gets_a_look_and_no_more() -> None:
    clock = Clock()
    deadline = Deadline(10, clock=clock)
    clock.now_s += 3600
    assert deadline.left_s() == LATE_READ_S
    clock.now_s += LATE_READ_S
    assert deadline.left_s() == 0


def test_a_deadline_that_was_over_when_it_was_made_gets_no_look() -> None:
    clock = Clock()
    deadline = Deadline(10, began=clock() - 60, clock=clock)
    assert deadline.left_s() == 0


def test_what_arrived_while_the_process_slept_is_taken() -> None:
    clock = Clock()
    inbox = Inbox(clock, (3600, None), (0.1, "answer"))
    assert take(inbox, 45, clock=clock) == "answer"
    assert inbox.timeouts == [45, LATE_READ_S]


def test_a_wait_that_ends_in_time_is_not_repeated() -> None:
    clock = Clock()
    inbox = Inbox(clock, (45.01, None))
    with pytest.raises(queue.Empty):
        take(inbox, 45, clock=clock)
    assert inbox.timeouts == [45]


def test_a_call_whose_process_slept_over_its_deadline_is_made_again(
    client: manyview.Client, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("manyview._transport.channel.Deadline", partial(Deadline, clock=clock))

    def sleeps(_: Any, context: Any) -> Any:
        clock.now_s += 3600
        context.abort_with_status(_late())

    server.reply("GetServerInfo", sleeps)
    assert client.server_info().version == "0.0.0-fake"
    assert len(server.requests("GetServerInfo")) == 2


def test_a_question_for_health_whose_process_slept_over_its_deadline_is_asked_again(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline is too short for any answer; the clock stands still until it has passed, and then it is late."""
    times = iter([100.0, 100.0, 100.0])
    monkeypatch.setattr("manyview._transport.channel.Deadline", partial(Deadline, clock=lambda: next(times, 3700.0)))
    with manyview.Client(server.target, deadlines=manyview.Deadlines(unary_s=1e-6)) as client:
        assert client.health() == "SERVING"


def _late() -> Any:
    import grpc

    class Status(grpc.Status):
        code, details, trailing_metadata = grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", ()

    return Status()


WAITS = """
import sys, manyview
with manyview.Client(sys.argv[1]) as client:
    print(client.job("sleepy").wait(timeout_s=float(sys.argv[2])).state)
"""


def test_a_client_that_was_stopped_for_longer_than_its_limit_sees_what_came_meanwhile(
    client: manyview.Client, server: FakeServer
) -> None:
    """The answer arrives while the process is stopped, with SIGSTOP, over the end of its limit."""
    limit_s = 5.0
    client.upload([b"a"], "pets")
    job = client.train("pets", job_id="sleepy")
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS, server.target, str(limit_s)], stdout=subprocess.PIPE, text=True
    )

    def stops_the_caller(request: Any, context: Any) -> Iterator[Any]:
        os.kill(process.pid, signal.SIGSTOP)
        server.finish_job(job.name)
        yield from server.state.subscribe_metrics(request, context)

    server.reply("SubscribeMetrics", stops_the_caller)
    try:
        _wait_for(lambda: bool(server.requests("SubscribeMetrics")))
        time.sleep(limit_s + 1.5)
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate(timeout=40)
    finally:
        process.kill()
        process.communicate()
    assert (said.strip(), process.returncode) == ("SUCCEEDED", 0)


def _wait_for(condition: Any) -> None:
    while not condition():
        time.sleep(0.02)
