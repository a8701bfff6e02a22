"""A bar on stderr while images go out; nothing at all where stderr is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
def _bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)
