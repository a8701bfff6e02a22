"""A progress bar on stderr, which is shown only if stderr is a terminal or the caller asks for it.

In both functions `progress` is None (a bar on a terminal), True (a bar), False (nothing), or a function that gets
(done, total).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

ProgressOption = bool | Callable[[int, int | None], None] | None


@contextmanager
def counting(progress: ProgressOption, title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield `advance(n)`, which adds to the work that is done. `total` is None if it is unknown."""
    if callable(progress):
        yield _counter(progress, total)
    elif _is_shown(progress):
        with _rich_progress() as bar:
            task = bar.add_task(title, total=total)
            yield lambda count: bar.advance(task, count)
    else:
        yield lambda _: None


@contextmanager
def reporting(progress: ProgressOption, title: str) -> Iterator[Callable[[int, int], None]]:
    """Yield `report(done, total)`, for work of the server, which counts it itself."""
    if callable(progress):
        yield progress
    elif _is_shown(progress):
        with _rich_progress() as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total or None)
    else:
        yield lambda _done, _total: None


def _counter(report: Callable[[int, int | None], None], total: int | None) -> Callable[[int], None]:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        report(done, total)

    return advance


def _is_shown(progress: bool | None) -> bool:
    return sys.stderr.isatty() if progress is None else progress


def _rich_progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
