"""docs/operations.md shows the figures about large data sets that were measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.large_data import beyond_memory, limited_server, rows

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


@pytest.mark.parametrize("benchmark", [rows, beyond_memory])
def test_the_page_shows_the_tables_of_the_results(benchmark: object) -> None:
    assert f"\n{benchmark.document()}\n" in PAGE  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(29.96, "30"), (77.3, "77"), (3.416, "3.4"), (0.02002, "0.02"), (0.0001, "0.0001"), (1.0, "1"), (0.84, "0.84")],
)
def test_a_figure_has_two_digits_that_count(seconds: float, text: str) -> None:
    assert rows.figure(seconds) == text


def test_the_readings_of_the_memory_are_cut_into_quarters_that_miss_none() -> None:
    for count in (4, 5, 11, 400):
        parts = limited_server.quarters(list(range(count)))
        assert [one for part in parts for one in part] == list(range(count))
        assert len(parts) == 4
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
