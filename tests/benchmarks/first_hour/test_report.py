"""docs/operations.md shows the newest figures of both walks, and their sums are right."""

from __future__ import annotations

from pathlib import Path

from benchmarks.first_hour.report import report
from benchmarks.results import Results

PAGE = Path(__file__).parent.parent.parent.parent / "docs" / "operations.md"
CELLS = Results("first_hour").cells()


def test_the_page_shows_the_newest_tables() -> None:
    tables = [part for part in report(CELLS).split("\n\n") if part.startswith("|")]
    assert len(tables) == 2
    for table in tables:
        assert f"\n{table}\n" in PAGE.read_text()


def test_the_newest_cell_of_each_part_counts_and_a_sum_leaves_the_stop_out() -> None:
    def cell(took_s: float) -> dict[str, object]:
        steps = [("pip install", took_s), ("train", 90.0), ("stop the server", 7.0)]
        shown = [{"name": name, "took_s": seconds, "silence_s": 0.5} for name, seconds in steps]
        values = {"steps": shown, "files": 3000, "load": 0.4}
        return {"key": {"part": "install"}, "values": values, "machine": "two cores", "time": "2026-11-28"}

    text = report([cell(500.0), cell(40.0)])
    assert "| pip install | 40.0 s | 0.5 s |" in text
    assert "| all of it | 2 min 10 s |  |" in text
    assert "stop" not in text


def test_without_cells_nothing_is_claimed() -> None:
    assert report([]) == "nothing is measured yet"
