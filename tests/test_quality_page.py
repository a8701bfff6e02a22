"""docs/quality.md shows the cells that were measured, as the benchmark itself prints them."""

from __future__ import annotations

from pathlib import Path

from benchmarks.quality.report import EQUAL_TIME, LIGHTLY, report
from benchmarks.results import Results

PAGE = (Path(__file__).parent.parent / "docs" / "quality.md").read_text()


def test_the_table_is_that_of_the_cells() -> None:
    assert f"```\n{report(Results('quality').cells())}\n```" in PAGE


def test_equal_time_was_no_more_than_lightlys() -> None:
    cells = {
        (cell["key"]["method"], cell["key"]["seed"], cell["key"]["system"]): cell["values"]["cpu_seconds"]
        for cell in Results("quality").cells()
        if "method" in cell["key"]
    }
    ours = [key for key in cells if key[2] == EQUAL_TIME]
    assert ours
    for method, seed, system in ours:
        assert cells[method, seed, system] <= 1.05 * cells[method, seed, LIGHTLY], (method, seed)
