"""The progress of a train job, shown while its caller waits for its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from manyview._errors import ManyviewError
from manyview._progress.report import ProgressOption, Report, reporting
from manyview._types.jobs import TrainJobInfo

ASK_S = 1.0
"""The time between two requests for the progress of the job."""


@contextmanager
def shown(ask: Callable[[], TrainJobInfo], title: str, progress: ProgressOption) -> Iterator[None]:
    """Show what the job is doing, and its steps, while the block runs. A thread requests them, unless nobody reads
    them."""
    with reporting(progress, title, "asking for its state") as report:
        if not report.is_read:
            yield
            return
        ended = threading.Event()
        threading.Thread(target=_follow, args=(ask, report, ended), name="manyview-job-line", daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            report.say("")  # the line does not stay: the caller gets the job's last state


def _follow(ask: Callable[[], TrainJobInfo], report: Report, ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            info = ask()
            if not ended.is_set():
                _show(info, report)
        except ManyviewError as error:  # the waiting call continues, and raises its own error in time
            report.say(f"the server does not answer: {error.message}")
        ended.wait(ASK_S)


def _show(info: TrainJobInfo, report: Report) -> None:
    progress = info.progress
    if info.state == "RUNNING" and progress.step and progress.num_steps:
        report.count(progress.step, progress.num_steps, "training: step")
    else:
        report.say(info.doing or info.state.lower())
