"""docs/quality.md shows the cells of the search for recipes as the benchmark itself prints them."""

from __future__ import annotations

from pathlib import Path

from benchmarks.recipes.recipes import DEFAULTS, RECIPES
from benchmarks.recipes.report import KINDS, defaults, search
from benchmarks.results import Results

PAGE = (Path(__file__).parent.parent / "docs" / "quality.md").read_text()
CELLS = Results("recipes").cells()


def test_the_tables_are_those_of_the_cells() -> None:
    assert f"```\n{defaults(CELLS)}\n```" in PAGE
    assert f"```\n{search(CELLS)}\n```" in PAGE


def test_no_training_took_more_time_than_its_cell_says() -> None:
    for cell in CELLS:
        assert cell["values"]["cpu_s"] <= 1.02 * cell["key"]["cpu_s"] + 1, cell["key"]


def test_each_default_has_the_network_that_its_name_says() -> None:
    for name in (name for names in DEFAULTS.values() for name in names):
        config = RECIPES[name].config
        width = f" x {config['backbone_width']:g}" if "backbone_width" in config else ""
        assert name == f"{RECIPES[name].method}, {config['backbone']}{width}"
    assert {cell["key"]["images"] for cell in CELLS} == set(KINDS)
