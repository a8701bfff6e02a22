"""The scalars of a job as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyview import _convert
from manyview._arguments import did_you_mean
from manyview._progress.words import number_of
from manyview._transport.paging import pages
from manyview._transport.rpcs import Rpcs
from manyview._types import scalar_text
from manyview.v1 import metrics_service_pb2 as pb

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_PLACE = ("sequence", "time", "attempt", "step", "epoch")
"""The fields of a row that are not scalars."""
_PLOTTED = ("loss", "knn_top1", "representation_std")
_CURVE_WIDTH, _CURVE_HEIGHT = 160, 24


@dataclass(frozen=True, kw_only=True)
class History:
    """A job's scalars, one row for each time that some were logged, without rows that a rollback superseded.

    `rows` are dicts with sequence, time, attempt, step, epoch and the scalars. `history["loss"]` is a column, shape
    (rows,). It is NaN in rows that have no such scalar. `newest("loss")` is its last number.
    """

    rows: Sequence[Mapping[str, Any]]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        import numpy as np

        if name not in (*self.names, "sequence", "step", "epoch", "attempt"):
            hint = did_you_mean(name, self.names) or f"; known: {', '.join(self.names)}"
            raise KeyError(f"there is no scalar named {name!r}{hint}")
        return np.array([row.get(name, np.nan) for row in self.rows], dtype=np.float64)

    def __repr__(self) -> str:
        steps = f", steps {self.rows[0]['step']} to {self.rows[-1]['step']}" if self.rows else ""
        return f"<manyview.History {number_of(len(self), 'row')}{steps}: {', '.join(self.names)}>"

    def __str__(self) -> str:
        """Return a line for each scalar: its name, its first and its newest value."""
        width = max(map(len, self.names), default=0)
        lines = (f"{name:<{width}}  {first:<14} {newest}" for name, first, newest, _ in self._columns())
        return "\n".join([f"{'scalar':<{width}}  {'first':<14} newest", *lines])

    def newest(self, name: str) -> float:
        """Return the last number of a scalar. Raises KeyError if no scalar has that name."""
        return float(self._points(name)[1][-1])

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a DataFrame. Raises ValueError if pandas is not installed."""
        try:
            import pandas as pd
        except ImportError:
            raise ValueError("to_pandas needs pandas: pip install pandas") from None
        return pd.DataFrame(list(self.rows), columns=[*_PLACE, *self.names])

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the rows as a .csv file. A scalar that a row does not have is empty."""
        target = Path(path)
        if target.suffix != ".csv":
            raise ValueError(f"{target}: a history is saved as a .csv file")
        with target.open("w", newline="") as file:
            table = csv.DictWriter(file, [*_PLACE, *self.names])
            table.writeheader()
            table.writerows({**row, "time": row["time"] and row["time"].isoformat()} for row in self.rows)
        return target

    def plot(self, *names: str) -> Figure:
        """Return a figure with a curve of each of these scalars over the steps, by default of the loss, the accuracy of
        kNN and the spread. Raises ValueError if matplotlib is not installed."""
        chosen = names or [name for name in _PLOTTED if name in self.names] or self.names[:1]
        figure = _figure(4 * max(1, len(chosen)), 3)
        for place, name in enumerate(chosen, start=1):
            axes = figure.add_subplot(1, len(chosen), place)
            axes.plot(*self._points(name))
            axes.set(title=name, xlabel="step")
        return figure

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{first}</td><td>{newest}</td><td>{_curve(values)}</td></tr>"
            for name, first, newest, values in self._columns()
        )
        head = "".join(f"<th>{title}</th>" for title in ("scalar", "first", "newest", "so far"))
        return f"<table><tr>{head}</tr>{rows}</table>"

    def _points(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the steps at which a scalar has a number, and the numbers."""
        import numpy as np

        values = self[name]
        is_number = ~np.isnan(values)
        return self["step"][is_number], values[is_number]

    def _columns(self) -> Iterator[tuple[str, str, str, list[float]]]:
        """Yield each scalar that has values: its name, the first and the newest value with their units, and all."""
        for name in self.names:
            if values := [row[name] for row in self.rows if name in row]:
                yield name, scalar_text.value(name, values[0]), scalar_text.value(name, values[-1]), values


def _order(name: str) -> tuple[int, str]:
    """Return the sort key of a scalar: the main ones come first."""
    main = scalar_text.MAIN
    return main.index(name) if name in main else len(main), name


def _figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches. A notebook shows it although it is none of pyplot's. Raises ValueError if
    matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("plot needs matplotlib: pip install matplotlib") from None

    class Curves(Figure):
        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png")
            return file.getvalue()

    return Curves(figsize=(width, height), layout="constrained")


def _curve(values: Sequence[float]) -> str:
    """Return a small SVG picture of the finite values."""
    finite = [(place, value) for place, value in enumerate(values) if abs(value) < float("inf")]
    if len(finite) < 2:
        return ""
    low = min(value for _, value in finite)
    span = max(value for _, value in finite) - low or 1.0
    scale = _CURVE_WIDTH / (len(values) - 1)
    points = " ".join(
        f"{place * scale:.1f},{1 + (_CURVE_HEIGHT - 2) * (1 - (value - low) / span):.1f}" for place, value in finite
    )
    line = f'<polyline points="{points}" fill="none" stroke="#1769aa" stroke-width="1.5"/>'
    return f'<svg width="{_CURVE_WIDTH}" height="{_CURVE_HEIGHT}">{line}</svg>'


def query(rpcs: Rpcs, job: str, *, names: Sequence[str] | None = None, max_rows: int | None = None) -> History:
    """Return the job's scalars as a table."""

    def fetch(token: str) -> pb.QueryMetricsResponse:
        return rpcs.query_metrics(
            pb.QueryMetricsRequest(
                train_job=job, metric_names=names or (), max_rows=max_rows, page_size=10_000, page_token=token
            )
        )

    rows = [_row(row) for page in pages(fetch) for row in page.rows]
    found = {name for row in rows for name in row if name not in _PLACE}
    return History(rows=rows, names=tuple(sorted(found, key=_order)))


def _row(row: pb.MetricsRow) -> Mapping[str, Any]:
    place = {"sequence": row.sequence, "time": _convert.time(row.time), "attempt": row.attempt}
    return {**place, "step": row.step, "epoch": row.epoch, **dict(sorted(row.values.items()))}
