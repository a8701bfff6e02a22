"""The command that watches a job: a table that redraws itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manyview._cli.connection import Json, Target, Token, connect, json_text, megabytes, scalar, steps

if TYPE_CHECKING:
    from rich.console import RenderableType

    from manyview import Event, Job

_BARS = "▁▂▃▄▅▆▇█"
_POINTS = 40
_REFRESH_S = 2.0
# The time limit for the last look at a job that has ended.
_ENDED_S = 30.0


def watch(
    job: Annotated[str, typer.Argument(help="Train job.")],
    after: Annotated[int, typer.Option(help="Show only events after this sequence number.", min=0)] = 0,
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Watch a job until it ends: its state, progress, scalars and log. The exit status is 1 unless it succeeds."""
    with connect(target, token) as client:
        show(client.job(job), after=after, as_json=as_json)


def show(job: Job, *, after: int = 0, as_json: bool = False) -> None:
    """Show the job's events until it ends. Raises TrainJobFailed or TrainJobCancelled unless it succeeds."""
    if as_json or not sys.stdout.isatty():
        for event in job.metrics(after):
            typer.echo(json_text(_fields(event)) if as_json else line(event))
    else:
        _show_live(job, after)
    job.wait(timeout_s=_ENDED_S)


def _fields(event: Event) -> dict[str, Any]:
    names = ("sequence", "kind", "time", "attempt", "step", "epoch", "values")
    return {name: getattr(event, name) for name in names}


def line(event: Event) -> str:
    """Return an event as one line of text."""
    values = event.values
    match event.kind:
        case "scalars":
            text = "  ".join(f"{name} {scalar(name, value)}" for name, value in sorted(values.items()))
        case "state":
            text = " ".join(filter(None, (values["to"], values["reason"], values["message"])))
        case "snapshot":
            text = f"now trains on {values['num_images']} images, {values['num_added']} of them new"
        case "checkpoint":
            text = f"{values['name']}, {megabytes(values['num_bytes'])}"
        case "rollback":
            text = f"continues from step {values['to_step']}"
        case _:
            text = "  ".join(str(value) for value in values.values() if value != "")
    return f"#{event.sequence} step {event.step} epoch {event.epoch} {event.kind}: {text}"


def sparkline(values: deque[float]) -> str:
    """Return the values as a row of bars from the smallest to the largest. A value that is not finite is a blank."""
    finite = [value for value in values if abs(value) < float("inf")]
    if not finite:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    bars = (_BARS[int((value - low) / span * 7)] if abs(value) < float("inf") else " " for value in values)
    return "".join(bars)


class Board:
    """The screen of a watched job. rich renders it several times a second."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._looked = time.monotonic()
        self._scalars: dict[str, deque[float]] = {}
        self._alerts: deque[str] = deque(maxlen=3)
        self._notes: deque[str] = deque(maxlen=6)

    def add(self, event: Event) -> None:
        """Show an event. The job's progress is fetched every two seconds at most."""
        if event.kind == "scalars":
            for name, value in event.values.items():
                self._scalars.setdefault(name, deque(maxlen=_POINTS)).append(value)
        else:
            (self._alerts if event.kind == "alert" else self._notes).append(line(event))
        if event.kind == "state" or time.monotonic() - self._looked > _REFRESH_S:
            self._looked = time.monotonic()
            self._job.refresh()

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.padding import Padding
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        info = self._job.info
        done = info.progress
        eta = f"  ETA {_duration(done.eta_s)}" if done.eta_s and not info.is_terminal else ""
        queue = f"  {info.queue_position} ahead" if info.state == "QUEUED" else ""
        head = f"{info.name}  {info.state}{queue}  step {steps(done)}  epoch {done.epoch}{eta}"
        table = Table(box=None, pad_edge=False)
        for column in ("scalar", "newest", "so far"):
            table.add_column(column)
        for name, values in sorted(self._scalars.items()):
            table.add_row(name, scalar(name, values[-1]), sparkline(values))
        # A bar alone does not end its line.
        bar = Padding(ProgressBar(total=max(1, done.num_steps), completed=done.step), 0)
        parts: list[Any] = [Text(head, style="bold"), bar]
        alerts = (Text(alert, style="bold yellow") for alert in self._alerts)
        return Group(*parts, table, *alerts, *(Text(note, style="dim") for note in self._notes))


def _show_live(job: Job, after: int) -> None:
    from rich.live import Live

    board = Board(job)
    with Live(board, refresh_per_second=4):
        for event in job.metrics(after):
            board.add(event)
        job.refresh()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
