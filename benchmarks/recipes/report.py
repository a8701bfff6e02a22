"""The cells of the search for recipes as two tables: the trainings of ten minutes, and the search."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
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
    rows = [["network", *(title for kind in KINDS for title in (kind, "k = 20", "epochs", "seeds"))]]
    rows.append(["raw pixels", *(text for kind in KINDS for text in _columns(_of(cells, kind), "raw_"))])
    for cpu_s in (0, TABLE_S):
        for names in DEFAULTS.values():
            for name, age in zip(names, ("new", "old"), strict=True):
                found = [_of(cells, kind, recipe=name, cpu_s=cpu_s) for kind in KINDS]
                title = f"{age}: {name}" if cpu_s else f"untrained: {name.split(', ', 1)[1]}"
                if any(found):
                    rows.append([title, *(text for each in found for text in _columns(each))])
    return table(rows)


def search(cells: list[Cell]) -> str:
    """Return kNN of the short trainings of the search, with the best recipe for clothing first."""
    found = [cell for cell in cells if 0 < cell["key"]["cpu_s"] < TABLE_S]
    names = {(cell["key"]["recipe"], cell["key"]["cpu_s"]): cell for cell in found}
    rows = [["recipe", "CPU s", *(title for kind in KINDS for title in (kind, "half", "half, k = 20", "epochs"))]]
    ranked = []
    for name, cpu_s in names:
        columns, rank = [name, str(cpu_s)], 0.0
        for kind in KINDS:
            each = _of(found, kind, recipe=name, cpu_s=cpu_s)
            keys = ("knn_top1", "half_knn_top1", "half_knn_top1_k20_t0.07")
            columns += [*(_mean(each, key) for key in keys), _epochs(each)]
            rank = rank or (each[0]["values"]["half_knn_top1"] if each else 0.0)
        ranked.append((rank, columns))
    for kind_cells in [[next(iter(_of(cells, kind)), None) for kind in KINDS]]:
        columns = ["raw pixels", ""]
        for cell in kind_cells:
            keys = ("raw_knn_top1", "raw_half_knn_top1", "raw_half_knn_top1_k20_t0.07")
            columns += [*(_mean([cell] if cell else [], key) for key in keys), "-"]
        rows.append(columns)
    return table([*rows, *(columns for _, columns in sorted(ranked, reverse=True))])


def _of(cells: Iterable[Cell], kind: str, **key: Any) -> list[Cell]:
    wanted = {"images": kind, **key}
    return [cell for cell in cells if wanted.items() <= cell["key"].items()]


def _columns(cells: list[Cell], prefix: str = "") -> list[str]:
    """Return the accuracies, the epochs and the seeds. Raw pixels are the same in all cells."""
    cells = cells[:1] if prefix else cells
    keys = (f"{prefix}knn_top1", f"{prefix}knn_top1_k20_t0.07")
    seeds = "-" if prefix else str(len({cell["key"]["seed"] for cell in cells}))
    return [*(_mean(cells, key) for key in keys), "-" if prefix else _epochs(cells), seeds]


def _epochs(cells: list[Cell]) -> str:
    return f"{statistics.mean(cell['values']['epochs'] for cell in cells):.0f}" if cells else "-"


def _mean(cells: list[Cell], name: str) -> str:
    """Format the mean in percent, with the standard deviation if there are several values."""
    values = [100 * cell["values"][name] for cell in cells]
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"
