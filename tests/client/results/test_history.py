"""The scalars of a job as a table, as text, in a notebook and in files."""

from __future__ import annotations

import csv
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from manyview import History

TIME = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)


def row(step: int, **values: float) -> dict[str, Any]:
    return {"sequence": step, "time": TIME, "attempt": 1, "step": step, "epoch": 0, **values}


@pytest.fixture
def history() -> History:
    rows = [row(10, loss=3.5), row(20, loss=float("nan")), row(27, knn_top1=0.25), row(30, loss=2.5, memory_bytes=9e8)]
    return History(rows=rows, names=("loss", "knn_top1", "memory_bytes"))


def test_it_introduces_itself_in_one_line(history: History) -> None:
    assert repr(history) == "<manyview.History 4 rows, steps 10 to 30: loss, knn_top1, memory_bytes>"
    assert repr(History(rows=[], names=())) == "<manyview.History 0 rows: >"


def test_as_text_it_has_the_first_and_the_newest_value_of_each_scalar(history: History) -> None:
    lines = [line.split() for line in str(history).splitlines()]
    assert lines == [
        ["scalar", "first", "newest"],
        ["loss", "3.5", "2.5"],
        ["knn_top1", "25.0", "%", "25.0", "%"],
        ["memory_bytes", "900", "MB", "900", "MB"],
    ]
    assert history.newest("knn_top1") == 0.25
    with pytest.raises(KeyError, match="did you mean 'knn_top1'"):
        history.newest("knn_top")


def test_a_notebook_shows_curves(history: History) -> None:
    shown = history._repr_html_()
    assert shown.count("<tr>") == 4
    assert "<tr><td>memory_bytes</td><td>900 MB</td><td>900 MB</td>" in shown
    assert shown.count("<polyline") == 1, "only the loss has two values to connect"
    # The loss falls from the top left to the bottom right; NaN is left out.
    assert 'points="0.0,1.0 160.0,23.0"' in shown


def test_it_is_saved_as_a_table(history: History, tmp_path: Path) -> None:
    with history.save(tmp_path / "history.csv").open(newline="") as file:
        first, _, third, _ = csv.DictReader(file)
    assert (first["step"], first["loss"], first["knn_top1"]) == ("10", "3.5", "")
    assert (third["time"], third["knn_top1"]) == ("2026-11-28T09:00:00+00:00", "0.25")
    with pytest.raises(ValueError, match=r"a history is saved as a \.csv file"):
        history.save(tmp_path / "history.xlsx")


def test_it_is_drawn_by_matplotlib(history: History) -> None:
    figure = history.plot()
    assert [axes.get_title() for axes in figure.axes] == ["loss", "knn_top1"]
    (line,) = figure.axes[0].lines
    np.testing.assert_array_equal(line.get_xydata(), [[10, 3.5], [30, 2.5]])
    assert [axes.get_title() for axes in history.plot("memory_bytes").axes] == ["memory_bytes"]
    assert figure._repr_png_().startswith(b"\x89PNG"), "a notebook shows the figures of pyplot alone by itself"  # type: ignore[attr-defined]


def test_it_becomes_a_data_frame(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """pandas is not among the packages of the tests: what it is given must be what it takes."""
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=lambda rows, columns: (rows, columns)))
    rows, columns = history.to_pandas()
    assert rows == list(history.rows)
    assert columns == ["sequence", "time", "attempt", "step", "epoch", "loss", "knn_top1", "memory_bytes"]


@pytest.mark.parametrize(("method", "package"), [("to_pandas", "pandas"), ("plot", "matplotlib")])
def test_a_missing_package_is_named(
    history: History, monkeypatch: pytest.MonkeyPatch, method: str, package: str
) -> None:
    for name in (package, f"{package}.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=f"{method} needs {package}: pip install {package}"):
        getattr(history, method)()
