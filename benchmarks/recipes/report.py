"""The cells of the search for recipes as two tables: the trainings of ten minutes, and the search."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks.recipes.recipes import DEFAULTS, TABLE_S
from benchmarks.results import table

KINDS = ("clothing", "photographs")
Cell = dict[str, Any]


def report(cells: list[Cell]) -> str:
    """Return the table of the defaults, with mean and spread over the seeds, and that of the search."""
    return f"{defaults(cells)}\n\n{search(cells)}"


def defaults(cells: list[Cell]) -> str:
    """Return kNN of raw pixels, and of each default without training and after ten minutes, for both sets."""
    rows = [["network", *(title for kind in KINDS for title in (kind, "k = 20", "half", "epochs", "seeds"))]]
    rows.append(["raw pixels", *_compared(cells, "raw_")])
    for cpu_s in (0, TABLE_S):
        for names in DEFAULTS.values():
            for name, age in zip(names, ("new", "old"), strict=True):
                title = f"{age}: {name}" if cpu_s else f"untrained: {name.split(', ', 1)[1]}"
                if found := [*_named(cells, name, cpu_s)]:
                    rows.append([title, *_compared(found)])
    return table(rows)


def search(cells: list[Cell]) -> str:
    """Return kNN of the short trainings of the search, with the best recipe for clothing first."""
    found = [cell for cell in cells if 0 < cell["key"]["cpu_s"] < TABLE_S]
    rows = [["recipe", "CPU s", *(title for kind in KINDS for title in (kind, "half", "half, k = 20", "epochs"))]]
    rows.append(["raw pixels", "", *_searched(cells, "raw_")])
    recipes = {
        (cell["key"]["recipe"], cell["key"]["cpu_s"]): cell["values"]["half_knn_top1"]
        for cell in sorted(found, key=lambda cell: KINDS.index(cell["key"]["images"]), reverse=True)
    }
    for name, cpu_s in sorted(recipes, key=lambda key: -recipes[key]):
        rows.append([name, str(cpu_s), *_searched([*_named(found, name, cpu_s)])])
    return table(rows)


def _named(cells: Iterable[Cell], name: str, cpu_s: int) -> Iterator[Cell]:
    return (cell for cell in cells if (cell["key"]["recipe"], cell["key"]["cpu_s"]) == (name, cpu_s))


def _searched(cells: list[Cell], prefix: str = "") -> list[str]:
    """Return the accuracies and the epochs of the first cell of each set."""
    columns: list[str] = []
    for kind in KINDS:
        first = [cell for cell in cells if cell["key"]["images"] == kind][:1]
        names = ("knn_top1", "half_knn_top1", "half_knn_top1_k20_t0.07")
        columns += [*(_mean(first, prefix + name) for name in names), "-" if prefix else _epochs(first)]
    return columns


def _compared(cells: list[Cell], prefix: str = "") -> list[str]:
    """Return the accuracies, the epochs and the seeds for each set. Raw pixels are the same in all of its cells."""
    columns: list[str] = []
    for kind in KINDS:
        found = [cell for cell in cells if cell["key"]["images"] == kind]
        found = found[:1] if prefix else found
        columns += [_mean(found, prefix + name) for name in ("knn_top1", "knn_top1_k20_t0.07", "half_knn_top1")]
        columns += ["-", "-"] if prefix else [_epochs(found), str(len(found))]
    return columns


def _epochs(cells: list[Cell]) -> str:
    return f"{statistics.mean(cell['values']['epochs'] for cell in cells):.0f}" if cells else "-"


def _mean(cells: list[Cell], name: str) -> str:
    """Format the mean in percent, with the standard deviation if there are several values."""
    values = [100 * cell["values"][name] for cell in cells]
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"
