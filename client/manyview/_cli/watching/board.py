"""The screen of a watched job, which fits into the terminal.

From the top: state and activity, bars of the job and of its activity, the main scalars, alerts, and the log, which
takes the rows that are left. `shows_all` adds the other scalars, and leaves fewer rows to the log.
"""

from __future__ import annotations

import textwrap
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from manyview._cli.watching import lines
from manyview._cli.watching.series import Series
from manyview._progress import words
from manyview._progress.words import number_of
from manyview._types import scalar_text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

    from manyview import Event, Job, TrainJobInfo

LABEL_COLUMNS, VALUE_COLUMNS = 22, 18
COSTS = ("images_per_second", "step_ms", "memory_bytes")
"""The scalars that share one row below the main ones."""
LOG_LINES = 100
SMALLEST_LOG = 3
ALERTS = 3
MOST_ALERT_ROWS = 4
HELP = "a: all values   q: stop watching, the job continues"
HELP_ALL = "a: main values   q: stop watching, the job continues"


class Board:
    """The screen of a watched job. rich renders it several times a second."""

    def __init__(self, job: Job, *, shows_all: bool = False) -> None:
        self._job = job
        self.shows_all = shows_all
        self.problem = ""
        """Why the newest state is not known, or ""."""
        self.has_keys = False
        """Are keys read?"""
        self._series: dict[str, Series] = {}
        self._alerts: deque[str] = deque(maxlen=ALERTS)
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._lock = threading.Lock()
        """rich renders in a thread of its own."""

    def add(self, event: Event) -> None:
        """Show an event."""
        with self._lock:
            if event.kind == "scalars":
                for name, value in event.values.items():
                    self._series.setdefault(name, Series()).add(value)
            else:
                (self._alerts if event.kind == "alert" else self._log).append(lines.short(event))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        height = (options.height or console.size.height) - 1  # the cursor stands below the last line
        for text, style in self.rows(options.max_width, height):
            yield Text(text, style=style, no_wrap=True, overflow="ellipsis")

    def rows(self, width: int, height: int) -> list[tuple[str, str]]:
        """Return each line of the screen, with its style."""
        with self._lock:
            return self._rows(self._job.info, width, height)

    def _rows(self, info: TrainJobInfo, width: int, height: int) -> list[tuple[str, str]]:
        loss, knn, *rest = self._scalars(scalar_text.MAIN, width)
        main = [loss, knn, *self._baselines(), *rest, *self._costs()]
        top = [*self._head(info, width), ("", ""), *main]
        alerts = self._alert_rows(width) or [("no alerts", "dim")]
        bottom = [(HELP_ALL if self.shows_all else HELP, "dim")] if self.has_keys and not info.is_terminal else []
        left = height - len(top) - len(alerts) - len(bottom) - 2
        others = self._others(width, max(0, left - SMALLEST_LOG)) if self.shows_all else []
        log = list(self._log)[-max(1, left - len(others)) :]
        return [*top, *others, ("", ""), *alerts, *((note, "dim") for note in log), *bottom]

    def _head(self, info: TrainJobInfo, width: int) -> list[tuple[str, str]]:
        done, activity = info.progress, info.progress.activity
        head = f"{info.name}  {info.state}"
        step = f"step {done.step:,} of {done.num_steps:,}" if done.num_steps else f"step {done.step:,}"
        epoch = f"epoch {min(done.epoch + 1, done.num_epochs):,} of {done.num_epochs:,}" if done.num_epochs else ""
        share = f"{100 * done.step // done.num_steps} %" if done.num_steps else ""
        eta = f"ETA {words.duration(done.eta_s)}" if done.eta_s and not info.is_terminal else ""
        room = width - len("  ".join(filter(None, (epoch, share, step, eta)))) - 2
        bar = words.bar(done.step, done.num_steps, min(room, width // 4)) if done.num_steps else ""
        doing = info.doing
        if activity is not None and activity.total:
            doing = f"{doing} {words.bar(activity.done, activity.total)}"
        failure = f"{info.failure.reason}: {info.failure.message}" if info.failure else ""
        return [
            (head, "bold"),
            ("  ".join(filter(None, (epoch, bar, share, step, eta))), "cyan"),
            (self.problem or failure or doing, "bold red" if self.problem or failure else ""),
        ]

    def _alert_rows(self, width: int) -> list[tuple[str, str]]:
        """Return the alerts. The newest one is shown whole, in several rows if it is long."""
        *older, newest = self._alerts or [""]
        rows = [*older, *textwrap.wrap(newest, width, subsequent_indent="  ", max_lines=MOST_ALERT_ROWS)]
        return [(row, "bold yellow") for row in rows]

    def _scalars(self, names: Sequence[str], width: int) -> list[tuple[str, str]]:
        return [(self._scalar(name, width), "") for name in names]

    def _scalar(self, name: str, width: int) -> str:
        """Return one scalar: its label, its newest value, and all values as a sparkline."""
        series = self._series.get(name)
        if series is None:
            return f"{scalar_text.label(name):<{LABEL_COLUMNS}}not measured yet"
        newest, spark = (
            scalar_text.value(name, series.newest),
            series.sparkline(width - LABEL_COLUMNS - VALUE_COLUMNS - 1),
        )
        return f"{scalar_text.label(name):<{LABEL_COLUMNS}}{newest:<{VALUE_COLUMNS}}{spark}"

    def _baselines(self) -> list[tuple[str, str]]:
        """Return the row of what the job's kNN must beat, if that is measured."""
        known = {text: self._series[name] for name, text in scalar_text.BASELINES.items() if name in self._series}
        texts = (f"{text} {scalar_text.value('knn_top1', series.newest)}" for text, series in known.items())
        return [(f"{'':<{LABEL_COLUMNS}}to beat: {', '.join(texts)}", "dim")] if known else []

    def _costs(self) -> list[tuple[str, str]]:
        """Return the row of speed and memory, if they are measured."""
        known = {name: self._series[name].newest for name in COSTS if name in self._series}
        texts = (f"{scalar_text.label(name)} {scalar_text.value(name, value)}" for name, value in known.items())
        return [("   ".join(texts), "dim")] if known else []

    def _others(self, width: int, room: int) -> list[tuple[str, str]]:
        """Return the scalars that are not always shown, in as many rows as there are. The last row counts the rest."""
        names = sorted(self._series.keys() - {*scalar_text.MAIN, *scalar_text.BASELINES, *COSTS}, key=scalar_text.order)
        if len(names) <= room:
            return self._scalars(names, width)
        if room <= 0:
            return []
        hidden = len(names) - room + 1
        return [
            *self._scalars(names[: room - 1], width),
            (f"{number_of(hidden, 'more value needs', 'more values need')} a taller terminal", "dim"),
        ]
