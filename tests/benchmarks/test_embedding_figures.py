"""docs/performance.md shows the figures of embedding that were measured."""

from __future__ import annotations

from pathlib import Path

from benchmarks import embedding

PAGE = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()


def test_the_tables_are_those_of_the_results() -> None:
    assert embedding.report() in PAGE
