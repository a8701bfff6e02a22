"""A bar on stderr while something takes its time; nothing at all where stderr is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

ProgressOption = bool | Callable[[int, int | None], None] | None


@contextmanager
def reporter(progress: ProgressOption, title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yields `advance(n)`. `progress`: None shows a bar on a terminal, True and False force it, a callable gets
    (done, total)."""
    if callable(progress):
        yield _counter(progress, total)
    elif progress or (progress is None and sys.stderr.isatty()):
        with _bar(title, total) as advance:
            yield advance
    else:
        yield lambda _: None


def _counter(report: Callable[[int, int | None], None], total: int | None) -> Callable[[int], None]:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        report(done, total)

    return advance


@contextmanager
def gauge(progress: ProgressOption, title: str) -> Iterator[Callable[[int, int], None]]:
    """Yields `report(done, total)`, for what the server does; `progress` as in `reporter`."""
    if callable(progress):
        yield progress
    elif progress or (progress is None and sys.stderr.isatty()):
        with _rich_progress() as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total or None)
    else:
        yield lambda _done, _total: None


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    with _rich_progress() as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


def _rich_progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
