"""The tables hold every recipe, with mean and spread where there are several seeds."""

from __future__ import annotations

from typing import Any

from benchmarks.recipes.recipes import DEFAULTS, TABLE_S
from benchmarks.recipes.report import defaults, report, search

NEW, OLD = DEFAULTS["moco"]


def cell(images: str, recipe: str, cpu_s: int, knn: float, seed: int = 0) -> dict[str, Any]:
    names = ("knn_top1", "knn_top1_k20_t0.07", "half_knn_top1", "half_knn_top1_k20_t0.07")
    accuracies = {name: knn for name in names} | {f"raw_{name}": 0.4 for name in names}
    key = {"images": images, "recipe": recipe, "cpu_s": cpu_s, "seed": seed}
    return {"key": key, "values": {**accuracies, "epochs": 10.4}}


def test_the_defaults_have_a_row_each_as_far_as_they_are_measured() -> None:
    cells = [
        cell("clothing", NEW, 0, 0.3),
        cell("clothing", NEW, TABLE_S, 0.5),
        cell("clothing", NEW, TABLE_S, 0.52, seed=1),
        cell("photographs", NEW, TABLE_S, 0.6),
        cell("clothing", "simclr", 60, 0.9),
    ]
    rows = [line.split("  ") for line in defaults(cells).splitlines()]
    found = {row[0]: [part.strip() for part in row[1:] if part.strip()] for row in rows}
    assert found["raw pixels"] == [*["40.0"] * 3, "-", "-", *["40.0"] * 3, "-", "-"]
    assert found["untrained: resnet9 x 0.5"] == [*["30.0"] * 3, "10", "1", *["-"] * 4, "0"]
    assert found[f"new: {NEW}"] == [*["51.0 ± 1.4"] * 3, "10", "2", *["60.0"] * 3, "10", "1"]
    assert f"old: {OLD}" not in found


def test_the_search_lists_its_recipes_by_their_accuracy_on_clothing() -> None:
    cells = [
        cell("clothing", "one", 60, 0.3),
        cell("clothing", "two", 60, 0.4),
        cell("photographs", "one", 60, 0.9),
        cell("clothing", "one", TABLE_S, 0.99),
        cell("clothing", "one", 100, 0.35),
    ]
    rows = [line.split()[:3] for line in search(cells).splitlines()[3:]]
    assert rows == [["two", "60", "40.0"], ["one", "100", "35.0"], ["one", "60", "30.0"]]


def test_without_cells_there_are_tables_without_accuracies() -> None:
    assert "raw pixels" in report([])
