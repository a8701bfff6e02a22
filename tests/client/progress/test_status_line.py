"""The line that says what is being done, as a terminal of a given width shows it."""

from __future__ import annotations

import io
import threading
import time

import pytest

from manyview._progress import status_line
from manyview._progress.status_line import StatusLine


class Terminal(io.StringIO):
    """Keeps what is written, and knows what its only line shows."""

    def __init__(self) -> None:
        super().__init__()
        self.screens: list[str] = []

    def write(self, text: str) -> int:
        shown = ""
        for part in text.split("\r"):
            shown = part + shown[len(part) :]
        self.screens.append(shown.rstrip(" "))
        return super().write(text)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands still, and no redrawing by itself."""
    monkeypatch.setattr(status_line, "REDRAW_S", 1000.0)
    return Clock()


def last(terminal: Terminal, line: StatusLine) -> str:
    line._draw()
    return terminal.screens[-1]


def test_a_step_without_a_count_shows_the_seconds_that_it_takes(clock: Clock) -> None:
    terminal = Terminal()
    with StatusLine(terminal, "select from pets", clock=clock) as line:
        line.show("starting a worker")
        assert terminal.screens[-1] == "select from pets: starting a worker, 0 s"
        clock.now = 3.2
        assert last(terminal, line) == "select from pets: starting a worker, 3 s"
        line.show("computing")
        assert terminal.screens[-1] == "select from pets: computing, 0 s"
    assert terminal.screens[-1] == ""


def test_a_count_shows_a_bar_and_the_time_that_is_left_at_the_rate_so_far(clock: Clock) -> None:
    terminal = Terminal()
    with StatusLine(terminal, "upload to pets", clock=clock) as line:
        line.show("sending", 0, 3068)
        assert terminal.screens[-1] == "upload to pets: sending 0 of 3,068 ────────────────────"
        clock.now = 10.0
        line.show("sending", 767, 3068)
        assert last(terminal, line) == "upload to pets: sending 767 of 3,068 ━━━━━─────────────── about 30 s left"
        clock.now = 40.0
        line.show("sending", 3068, 3068)
    assert terminal.screens[-1].rstrip(" \n") == "upload to pets: 3,068 in 40 s"


def test_the_rate_is_that_since_the_step_began(clock: Clock) -> None:
    """An upload that continues has compared most of its images in no time."""
    terminal = Terminal()
    with StatusLine(terminal, "upload", clock=clock) as line:
        line.show("comparing", 1000, 1200)
        line.show("sending", 1000, 1200)
        clock.now = 10.0
        line.show("sending", 1100, 1200)
        assert last(terminal, line).endswith("about 10 s left")


def test_a_line_is_never_wider_than_the_terminal(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_line, "width_of", lambda _: 40)
    terminal = Terminal()
    with StatusLine(terminal, "upload to pets", clock=clock) as line:
        line.show("sending", 640, 3068)
        assert last(terminal, line) == "upload to pets: sending 640 of 3,068"
        line.show("a text that is longer than the terminal is wide")
        assert last(terminal, line) == "upload to pets: a text that is longer t"


def test_a_shorter_line_leaves_nothing_of_a_longer_one(clock: Clock) -> None:
    terminal = Terminal()
    with StatusLine(terminal, "x", clock=clock) as line:
        line.show("a long text")
        line.show("short")
        assert terminal.screens[-1] == "x: short, 0 s"


def test_an_error_leaves_no_line(clock: Clock) -> None:
    terminal = Terminal()
    line = StatusLine(terminal, "x", clock=clock)
    line.__enter__()
    line.show("sending", 1, 2)
    line.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert terminal.screens[-1] == ""


def test_text_that_is_printed_in_between_stands_on_lines_of_its_own(clock: Clock) -> None:
    terminal = Terminal()
    with StatusLine(terminal, "logs", clock=clock) as line, line.hidden():
        assert terminal.screens[-1] == ""
        terminal.write("a line\n")
    assert "a line\n" in terminal.getvalue()


def test_the_line_moves_while_its_caller_waits() -> None:
    terminal = Terminal()
    with StatusLine(terminal, "x"):
        deadline = time.monotonic() + 10
        while "x, 1 s" not in terminal.screens and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "x, 1 s" in terminal.screens
    assert "manyview-progress" not in {thread.name for thread in threading.enumerate()}


def test_a_notebook_is_written_to_only_when_the_line_changes(clock: Clock) -> None:
    notebook = Terminal()
    with StatusLine(notebook, "x", "computing", clock=clock) as line:
        for _ in range(5):
            line._draw()
        clock.now = 1.0
        line._draw()
    assert notebook.screens == ["x: computing, 0 s", "x: computing, 1 s", ""]


def test_a_terminal_that_is_gone_is_no_error(clock: Clock) -> None:
    terminal = Terminal()
    with StatusLine(terminal, "x", clock=clock) as line:
        terminal.close()
        line.show("sending", 1, 2)
