"""A board on a terminal until its job ends: it follows the events, asks for the state, and reads keys."""

from __future__ import annotations

import os
import select
import signal
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

    board = Board(job, shows_all=shows_all)
    with Live(board, refresh_per_second=4), _refreshing(job, board), _keys(board, sys.stdin):
        for event in job.metrics(after):
            board.add(event)
        job.refresh()


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
def _keys(board: Board, stdin: TextIO | None) -> Iterator[None]:
    """Read single keys from a terminal while the block runs."""
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
    thread = threading.Thread(target=_read_keys, args=(board, stdin, ended), name="manyview-keys", daemon=True)
    board.has_keys = True
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        board.has_keys = False
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _read_keys(board: Board, stdin: TextIO, ended: threading.Event) -> None:
    while not ended.is_set():
        if not select.select([stdin], [], [], POLL_S)[0]:
            continue
        keys = os.read(stdin.fileno(), 64).decode(errors="replace")
        if keys.count("a") % 2:
            board.shows_all = not board.shows_all
        if not keys or "q" in keys:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # wakes it from its wait for events
            return
