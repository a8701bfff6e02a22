"""Ctrl-C says what keeps running and how to continue."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import manyview
from manyview._cli import interrupted
from manyview._cli.main import app
from manyview.testing import FakeServer

Run = Callable[..., Any]


@pytest.fixture
def run(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MANYVIEW_TARGET", server.target)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path, server: FakeServer) -> Path:
    (tmp_path / "a.jpg").write_bytes(b"a")
    with manyview.Client(server.target) as client:
        client.upload(tmp_path, "pets")
    return tmp_path


def press_ctrl_c(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("method", "command", "says"),
    [
        (
            "upload",
            ["upload", "FOLDER", "-d", "pets"],
            "stopped: the images that were acknowledged are kept in pets\n"
            "  run the same command again to send the others\n",
        ),
        (
            "embed",
            ["embed", "FOLDER", "-m", "mine", "-o", "FOLDER/x.npy"],
            "stopped: FOLDER/x.npy was not written; run the same command again\n",
        ),
        (
            "embed_dataset",
            ["embed", "-d", "pets", "-m", "mine", "-o", "FOLDER/x.npy"],
            "stopped: FOLDER/x.npy was not written\n"
            "  the server keeps the embeddings that it has made: the same command continues from there\n",
        ),
        (
            "select",
            ["select", "pets", "-n", "1", "-m", "mine"],
            "stopped: there is no answer\n"
            "  the server keeps the embeddings that it has made: the same command continues from there\n",
        ),
        ("train", ["train", "pets"], "stopped: a job that was created continues; `manyview jobs` lists it\n"),
        ("jobs", ["jobs"], "stopped: the server finishes calls that it has received\n"),
    ],
)
def test_an_interrupted_command_says_what_is_kept_and_how_to_continue(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, command: list[str], says: str
) -> None:
    monkeypatch.setattr(manyview.Client, method, press_ctrl_c)
    result = run(*(word.replace("FOLDER", str(folder)) for word in command))
    assert result.exit_code == interrupted.STATUS == 130
    assert result.stderr == says.replace("FOLDER", str(folder))
    assert result.stdout == ""


@pytest.mark.parametrize("command", [["watch", "mine"], ["train", "pets", "--job-id", "mine", "--watch"]])
def test_somebody_who_stops_watching_hears_that_the_job_continues(
    run: Run, folder: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    if command[0] == "watch":
        run("train", "pets", "--job-id", "mine")
    monkeypatch.setattr(manyview.Job, "metrics", press_ctrl_c)
    result = run(*command)
    assert result.exit_code == 130
    assert result.stderr == (
        "stopped watching; trainJobs/mine continues (QUEUED)\n"
        "  watch it again: manyview watch mine\n"
        "  stop it:        manyview pause mine   or   manyview cancel mine\n"
    )
    assert server.requests("CancelTrainJob") == server.requests("PauseTrainJob") == []


def test_an_interrupted_upload_leaves_no_half_drawn_line(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.clients.terminal import Terminal

    terminal = Terminal()
    monkeypatch.setattr("manyview._client.upload_source", press_ctrl_c)
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    assert app(["upload", str(folder), "-d", "pets"], standalone_mode=False) == 130
    terminal.wait_for("listing files", "send the others")
    last_line = terminal.shown.split("stopped:")[0].rsplit("\r", 1)[-1]
    assert last_line.strip() == ""
    terminal.close()
