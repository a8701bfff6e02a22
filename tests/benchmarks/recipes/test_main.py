"""Each call measures the cells that are missing, in an order in which the newest table always says something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarks.recipes.recipes import DEFAULTS, RECIPES, SEARCH, TABLE_S, search_keys, table_keys
from benchmarks.results import Results

from benchmarks.recipes import __main__ as program

KINDS = ["clothing", "photographs"]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    found = Results("recipes", tmp_path)
    monkeypatch.setattr(program, "RESULTS", found)
    monkeypatch.setattr(program, "report", lambda cells: f"{len(cells)} cells")
    monkeypatch.setattr(
        program,
        "measure",
        lambda folder, key, precision: {"knn_top1": 0.5, "folder": folder.name, "precision": precision},
    )
    return found


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["recipes", *arguments])
    program.main()


def test_a_call_measures_the_next_cells_and_none_twice(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = list(search_keys(KINDS))
    results.add(wanted[1], {"knn_top1": 0.4})
    folders = ("--clothing", "shirts", "--photographs", "patches")
    call(monkeypatch, "search", *folders)
    call(monkeypatch, "search", *folders, "--cells", "2")
    assert [cell["key"] for cell in results.cells()] == [wanted[index] for index in (1, 0, 2, 3)]
    assert [cell["values"].get("folder") for cell in results.cells()] == [None, "shirts", "shirts", "patches"]
    call(monkeypatch, "search", *folders, "--cells", "1000")
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, "search", *folders)
    assert ended.value.code == program.NOTHING_LEFT
    assert len(results.cells()) == len(wanted)


def test_a_number_format_can_be_stated(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, "search", "--clothing", "shirts")
    call(monkeypatch, "search", "--clothing", "shirts", "--precision", "float32")
    assert [cell["values"]["precision"] for cell in results.cells()] == ["auto", "float32"]


def test_without_a_folder_nothing_is_measured(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, "report")
    with pytest.raises(SystemExit):
        call(monkeypatch, "table")
    assert results.cells() == []


def test_the_first_cells_of_the_table_are_whole_comparisons() -> None:
    keys = list(table_keys(KINDS))
    first = keys[:8]
    assert {key["seed"] for key in first} == {0}
    assert [(key["images"], key["recipe"], key["cpu_s"]) for key in first] == [
        (kind, recipe, cpu_s) for cpu_s in (0, TABLE_S) for kind in KINDS for recipe in DEFAULTS["moco"]
    ]
    assert len(keys) == len({tuple(key.items()) for key in keys})


def test_every_recipe_that_is_measured_is_known() -> None:
    assert {*SEARCH, *(name for names in DEFAULTS.values() for name in names)} <= set(RECIPES)


def test_the_images_of_a_key_decide_its_folder(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, "table", "--photographs", "patches", "--cells", "3")
    cells: list[dict[str, Any]] = results.cells()
    assert {cell["key"]["images"] for cell in cells} == {"photographs"}
    assert {cell["values"]["folder"] for cell in cells} == {"patches"}
