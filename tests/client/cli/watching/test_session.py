"""The board on a terminal, with its keys."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import pytest

import manyview
from manyview._cli.watching import session
from manyview.testing import FakeServer
from support.clients.terminal import Terminal


@pytest.fixture
def job(client: manyview.Client, server: FakeServer) -> manyview.Job:
    client.upload([b"a"], "pets")
    job = client.train("pets", job_id="mine")
    server.add_scalars(job.name, 1, loss=2.0, alignment=0.5)
    return job


@pytest.fixture
def meanwhile() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Runs something while the test watches, and raises its error."""
    threads, errors = [], list[BaseException]()

    def run(work: Callable[[], None]) -> None:
        def attempt() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)

        threads.append(threading.Thread(target=attempt))
        threads[-1].start()

    yield run
    for thread in threads:
        thread.join(30)
    assert errors == []


def watch(job: manyview.Job, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    monkeypatch.setattr(sys, "stdin", terminal.keyboard)
    session.watch_on_terminal(job, 0, shows_all=False)


def test_the_key_a_shows_all_values_and_the_end_of_the_job_ends_the_board(
    job: manyview.Job,
    server: FakeServer,
    terminal: Terminal,
    meanwhile: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def type_and_finish() -> None:
        terminal.wait_for("loss", "a: all values")
        assert "alignment" not in terminal.shown
        terminal.type("a")
        terminal.wait_for("alignment", "a: main values")
        server.finish_job(job.name)

    meanwhile(type_and_finish)
    watch(job, terminal, monkeypatch)
    assert job.state == "SUCCEEDED"


def test_the_key_q_stops_watching_like_ctrl_c(
    job: manyview.Job, terminal: Terminal, meanwhile: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def type_q() -> None:
        terminal.wait_for("q: stop watching")
        terminal.type("q")

    meanwhile(type_q)
    with pytest.raises(KeyboardInterrupt):
        watch(job, terminal, monkeypatch)
    assert job.refresh().state == "QUEUED"


def test_a_server_that_does_not_answer_is_said_on_the_board(
    job: manyview.Job,
    server: FakeServer,
    terminal: Terminal,
    meanwhile: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "REFRESH_S", 0.05)
    server.fail("GetTrainJob", "INTERNAL", times=10_000, message="out of order")

    def finish() -> None:
        terminal.wait_for("the server does not answer: out of order")
        server._failures["GetTrainJob"].clear()
        server.finish_job(job.name)

    meanwhile(finish)
    watch(job, terminal, monkeypatch)
