"""A board on a terminal until its job ends: it follows the events, asks for the state, and reads keys."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from manyview._cli.watching.board import Board

if TYPE_CHECKING:
    from manyview import Job

REFRESH_S = 1.0
"""The time between two questions for the state and the progress of the job."""
POLL_S = 0.2


def watch_on_terminal(job: Job, after: int, *, shows_all: bool) -> None:
    """Show the board until the job has ended. Raises KeyboardInterrupt for Ctrl-C and for the key q."""
    from rich.live import Live

    board, stopped = Board(job, shows_all=shows_all), threading.Event()
    with Live(board, refresh_per_second=4), _refreshing(job, board), _keys(board, sys.stdin, stopped):
        _follow(job, board, after, stopped)
        job.refresh()


def _follow(job: Job, board: Board, after: int, stopped: threading.Event) -> None:
    """Show the events until the job has ended. Raises KeyboardInterrupt when `stopped` is set.

    Another thread waits for the events. Ctrl-C in the middle of such a wait can leave its lock in a state that raises
    RuntimeError instead of KeyboardInterrupt.
    """
    errors: list[BaseException] = []

    def read() -> None:
        try:
            for event in job.metrics(after):
                board.add(event)
        except BaseException as error:  # raised in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=read, name="manyview-events", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_S)
        if stopped.is_set():
            raise KeyboardInterrupt
    if errors:
        raise errors[0]


@contextmanager
def _refreshing(job: Job, board: Board) -> Iterator[None]:
    """Ask for the state of the job while the block runs. A job that waits in a queue has no events."""
    from manyview import ManyviewError

    ended = threading.Event()

    def refresh() -> None:
        while not ended.is_set():
            try:
                job.refresh()
                board.problem = ""
            except ManyviewError as error:
                board.problem = f"the server does not answer: {error}"
            ended.wait(REFRESH_S)

    thread = threading.Thread(target=refresh, name="manyview-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def _keys(board: Board, stdin: TextIO | None, stopped: threading.Event) -> Iterator[None]:
    """Read single keys from a terminal while the block runs. The key q sets `stopped`."""
    try:
        import termios
        import tty
    except ImportError:  # Windows has no termios
        yield
        return
    if stdin is None or not stdin.isatty():
        yield
        return
    before = termios.tcgetattr(stdin)
    tty.setcbreak(stdin)
    ended = threading.Event()
    thread = threading.Thread(target=_read_keys, args=(board, stdin, stopped, ended), name="manyview-keys", daemon=True)
    board.has_keys = True
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        board.has_keys = False
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _read_keys(board: Board, stdin: TextIO, stopped: threading.Event, ended: threading.Event) -> None:
    while not ended.is_set():
        if not select.select([stdin], [], [], POLL_S)[0]:
            continue
        keys = os.read(stdin.fileno(), 64).decode(errors="replace")
        if keys.count("a") % 2:
            board.shows_all = not board.shows_all
        if not keys or "q" in keys:
            stopped.set()
            return
