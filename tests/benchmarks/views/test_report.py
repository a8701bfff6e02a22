"""docs/performance.md shows the figures of the benchmark of views, and the tables compute what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.results import Results
from benchmarks.views.report import profile_table, rate_table

PAGE = Path(__file__).parent.parent.parent.parent / "docs" / "performance.md"
CELLS = Results("views").cells()


def test_the_page_shows_the_tables_of_the_results() -> None:
    assert CELLS
    for table in (rate_table(CELLS), profile_table(CELLS)):
        assert f"\n{table}\n" in PAGE.read_text()


def cell(part: str, values: dict[str, Any]) -> dict[str, Any]:
    key = {"part": part, "recipe": "simclr", "size": 64, "side": None, "precision": "bfloat16"}
    return {"key": key, "values": values, "machine": "two cores", "time": "2026-11-28"}


def test_a_ratio_is_the_time_of_lightly_over_ours_with_and_without_decoding() -> None:
    values = {"decode": [0.1, 9.0, 0.1], "lightly_decode": [0.2], "views": [0.3], "lightly_views": [1.8], "others": 0.5}
    (row,) = rate_table([cell("rate", values)]).splitlines()[2:]
    shown = "| simclr | 64 | as they are | bfloat16 | 0.100 | 0.200 | 0.300 | 1.800 | 5.0 times | 6.0 times | 0.5 |"
    assert row == shown


def test_a_change_that_costs_less_than_the_noise_costs_nothing() -> None:
    changes = dict.fromkeys(("crop", "flip", "jitter", "gray", "blur", "solarize", "normalize"), -0.01)
    (row,) = profile_table([cell("profile", {"draw": 0.02, **changes, "all": 1.5, "others": 0.0})]).splitlines()[2:]
    assert row == f"| simclr | 64 | 0.020 |{' 0.000 |' * 7} 1.500 |"
