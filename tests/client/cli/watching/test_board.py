"""The board fits into its terminal, and what matters is always on it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

import manyview
from manyview._cli.watching.board import HELP, Board
from manyview.testing import FakeServer
from manyview.v1 import metrics_service_pb2, types_pb2

PAGE = Path(__file__).parents[4] / "docs" / "screens" / "watch.md"


def screen(board: Board, width: int = 80, height: int = 24) -> list[str]:
    """The lines of the board on a terminal of this size."""
    with open(os.devnull, "w") as nowhere:
        console = Console(width=width, height=height, record=True, file=nowhere)
        console.print(board)
        return console.export_text().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_the_page_shows_the_board_as_it_is(board: Board, width: int, height: int) -> None:
    board.has_keys = True
    text = PAGE.read_text()
    assert "\n".join(screen(board, width, height)) in text
    board.shows_all = True
    assert "\n".join(screen(board, width, height)) in text


@pytest.mark.parametrize("shows_all", [False, True])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (60, 20), (200, 60)])
def test_what_matters_is_always_on_a_screen_that_is_never_too_small(
    board: Board, width: int, height: int, shows_all: bool
) -> None:
    for number in range(500):
        log = manyview.Log(level="INFO", text=f"line {number} " + "which is long " * 20)
        board.add(
            manyview.Event(sequence=99 + number, kind="log", time=None, attempt=1, step=140, epoch=1, payload=log)
        )
    board.has_keys, board.shows_all = True, shows_all
    lines = screen(board, width, height)
    assert len(lines) <= height - 1
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for wanted in ("RUNNING", "epoch 2 of 8", "━", "ETA 7:09", "loss", "3.57", "kNN top-1", "39.7 %", "standard dev"):
        assert wanted in text
    assert "NON_FINITE_STEP" in text
    assert "line 499" in text
    assert "█" in text


def test_the_loss_comes_first_and_values_have_units(board: Board) -> None:
    board.shows_all = True
    lines = screen(board, 120, 40)[4:]
    labels = [line.partition("  ")[0] for line in lines]
    assert labels[:2] == ["loss", "kNN top-1"]
    assert lines[2].strip() == "to beat: raw pixels 52.9 %, untrained 38.0 %"
    assert labels[3] == "standard deviation"
    assert lines[4].startswith("speed 38.4 img/s")
    assert "effective rank" in labels
    assert not any("memory_bytes" in line for line in screen(board, 120, 40))


def test_values_that_do_not_fit_are_counted(board: Board) -> None:
    board.shows_all = True
    assert any("more values need a taller terminal" in line for line in screen(board))
    assert not any("taller" in line for line in screen(board, 120, 40))


@pytest.mark.parametrize(
    ("state", "activity", "position", "says"),
    [
        ("QUEUED", manyview.Activity(kind="WAITING_FOR_DEVICE"), 2, "waiting in the queue behind 2"),
        ("QUEUED", manyview.Activity(kind="WAITING_FOR_DEVICE"), 0, "waiting for the device"),
        (
            "QUEUED",
            manyview.Activity(kind="WAITING_FOR_IMAGES", done=341, total=400),
            0,
            "following: 341 of 400 images ━━━━━━━━━━━━━━━━━───",
        ),
        ("STARTING", manyview.Activity(kind="STARTING_WORKER"), 0, "starting a worker"),
        (
            "STARTING",
            manyview.Activity(kind="DECODING", done=1200, total=3068),
            0,
            "decoding 1,200 of 3,068 images ━━━━━━━─────────────",
        ),
        (
            "RUNNING",
            manyview.Activity(kind="MEASURING_BASELINE", done=0, total=6136),
            0,
            "measuring the baseline: 0 of 6,136 images ────────────────────",
        ),
    ],
)
def test_a_job_without_scalars_says_what_it_does_and_how_far_it_is(
    board_of: Callable[..., Board], state: str, activity: manyview.Activity, position: int, says: str
) -> None:
    progress = manyview.Progress(step=0, num_steps=0, epoch=0, num_epochs=0, eta_s=0.0, activity=activity)
    lines = screen(board_of(state=state, progress=progress, queue_position=position))
    assert lines[0] == f"trainJobs/clothing-moco  {state}"
    assert lines[2] == says
    assert "not measured yet" in lines[4]
    assert "no alerts" in lines


def test_a_job_that_is_done_has_neither_an_eta_nor_keys(board_of: Callable[..., Board]) -> None:
    progress = manyview.Progress(step=688, num_steps=688, epoch=8, num_epochs=8, eta_s=1.0)
    board = board_of(state="SUCCEEDED", progress=progress)
    board.has_keys = True
    lines = screen(board)
    assert lines[1] == "epoch 8 of 8  ━━━━━━━━━━━━━━━━━━━━  100 %  step 688 of 688"
    assert HELP not in lines


def test_a_server_that_does_not_answer_is_on_the_board(board: Board) -> None:
    board.problem = "the server does not answer: connection refused"
    assert screen(board)[2] == board.problem


def test_the_board_shows_the_events_of_a_server(client: manyview.Client, server: FakeServer) -> None:
    client.upload([b"a"], "pets")
    job = client.train("pets", job_id="collapsing")
    server.add_scalars(job.name, 1, loss=2.0)
    server.add_scalars(job.name, 2, loss=1.0)
    alert = metrics_service_pb2.Alert(reason="COLLAPSE", message="std 0.01")
    server.add_event(job.name, kind="KIND_ALERT", alert=alert)
    for number in range(20):
        server.add_event(job.name, kind="KIND_LOG", log=types_pb2.Log(text=f"line {number}"))
    server.finish_job(job.name)
    board = Board(job)
    for event in job.metrics():
        board.add(event)
    job.refresh()
    lines = screen(board, 100)
    assert lines[0] == "trainJobs/collapsing  SUCCEEDED"
    assert any(line.startswith("loss") and line.endswith("█▁") for line in lines)
    assert any("alert: COLLAPSE  std 0.01" in line for line in lines)
    assert any(line.endswith("line 19") for line in lines)
    assert not any(line.endswith("line 1") for line in lines)
    assert any("state: SUCCEEDED" in line for line in lines)
