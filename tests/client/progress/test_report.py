"""The progress of a call goes to the place that its caller chose."""

from __future__ import annotations

import io
import re
import sys
import types

import pytest

from manyview._progress.display import stream_for
from manyview._progress.report import reporting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ZMQInteractiveShell:
    """The class of IPython that runs notebooks has this name."""


def terminal_of(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make stderr a terminal. pytest replaces stderr after the fixtures were made."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def notebook(monkeypatch: pytest.MonkeyPatch, shell: object) -> io.StringIO:
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    return sys.stdout  # type: ignore[return-value]


def test_a_function_gets_counts_alone() -> None:
    heard: list[tuple[int, int | None]] = []
    with reporting(lambda done, total: heard.append((done, total)), "upload") as report:
        report.say("listing files")
        report.begin("sending", None)
        report.advance(2)
        report.advance(3)
        report.count(1, 9, "embedding")
    assert heard == [(2, None), (5, None), (1, 9)]


def test_a_terminal_shows_what_is_done_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = terminal_of(monkeypatch)
    with reporting(None, "upload to pets", "listing files") as report:
        assert "upload to pets: listing files, 0 s" in stderr.getvalue()
        report.begin("sending", 2)
        report.advance(1)
        report.proceed("comparing")
        assert "upload to pets: comparing 1 of 2" in stderr.getvalue()
        report.proceed("sending")
        report.advance(1)
    assert stderr.getvalue().endswith("\n")
    assert "upload to pets: 2 images in 0." in stderr.getvalue()


@pytest.mark.parametrize("progress", [None, False])
def test_a_stream_that_is_no_terminal_stays_empty(monkeypatch: pytest.MonkeyPatch, progress: bool | None) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    with reporting(progress, "upload") as report:
        report.begin("sending", 2)
        report.advance(2)
    assert stderr.getvalue() == ""


def test_a_notebook_has_a_line_in_its_output_without_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = terminal_of(monkeypatch)
    stdout = notebook(monkeypatch, ZMQInteractiveShell())
    with reporting(None, "embed") as report:
        report.begin("embedding", 2)
        report.advance(2)
    assert stderr.getvalue() == ""
    assert re.search(r"embed: 2 images in \d\.\d s *\n$", stdout.getvalue())
    assert "\x1b" not in stdout.getvalue(), "notebooks know few escape sequences"


def test_ipython_on_a_terminal_is_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = terminal_of(monkeypatch)
    notebook(monkeypatch, object())
    assert stream_for(None) is stderr


@pytest.mark.parametrize("broken", [None, "closed"])
def test_a_program_without_stderr_shows_nothing(monkeypatch: pytest.MonkeyPatch, broken: str | None) -> None:
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream if broken else None)
    assert stream_for(None) is None
