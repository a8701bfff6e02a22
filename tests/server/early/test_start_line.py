"""A starting server says what it is doing: one line that is redrawn on a terminal, lines of the log elsewhere."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

import support.clients.terminal
from manyview_server.early.start_line import ERASE, StartLine
from manyview_server.front import json_logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> list[str]:
        """The line after each redrawing."""
        return self.getvalue().split(ERASE)


@pytest.fixture(autouse=True)
def kept_logging() -> Iterator[None]:
    """Leave the handlers of the root logger as they were."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_the_help_says_that_it_is_loaded() -> None:
    terminal = support.clients.terminal.Terminal()
    command = [sys.executable, "-m", "manyview_server", "serve", "--help"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal.stream, text=True, check=True)
    terminal.wait_for("starting: loading the settings, ")
    terminal.close()
    assert "--listen" in done.stdout


def test_the_line_is_redrawn_with_the_seconds_while_a_step_lasts() -> None:
    terminal = Terminal()
    line = StartLine(terminal)
    line.show("listing methods")
    deadline = time.monotonic() + 10
    while "starting: listing methods, 1 s" not in terminal.shown and time.monotonic() < deadline:
        time.sleep(0.05)
    line.end()
    assert terminal.shown[1] == "starting: listing methods, 0 s"
    assert "starting: listing methods, 1 s" in terminal.shown
    assert terminal.shown[-1] == ""


def test_a_log_line_appears_above_the_line() -> None:
    terminal = Terminal()
    line = StartLine(terminal)
    json_logs.configure("info", line)
    line.show("opening the data directory")
    logging.getLogger("x").warning("careful")
    line.end()
    logging.getLogger("x").warning("serving")
    first, second = (json.loads(part) for part in terminal.shown if part.startswith("{") for part in part.splitlines())
    assert (first["message"], second["message"]) == ("careful", "serving")
    assert "opening" not in first["message"]


def test_a_log_that_is_no_terminal_gets_one_line_for_each_step() -> None:
    stream = io.StringIO()
    line = StartLine(stream)
    json_logs.configure("info", line)
    line.show("opening the data directory")
    line.show("resuming unfinished jobs")
    line.end()
    messages = [json.loads(text)["message"] for text in stream.getvalue().splitlines()]
    assert messages == ["starting: opening the data directory", "starting: resuming unfinished jobs"]
