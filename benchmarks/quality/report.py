"""The cells of the quality benchmark as a table."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.results import table

LIGHTLY, OURS, EQUAL_TIME = "lightly", "ours", "ours, equal time"


def report(cells: list[dict[str, Any]]) -> str:
    """For each method the mean over paired seeds, of both sides and of their differences."""
    found = {
        (cell["key"].get("method"), cell["key"]["system"], cell["key"].get("seed")): cell["values"] for cell in cells
    }
    lines = [
        f"{system}: {100 * values['knn_top1']:.1f} %" for (method, system, _), values in found.items() if method is None
    ]
    rows = [
        ["method", "seeds", "lightly", "ours, equal epochs", "difference", "ours, equal time", "difference", "speed"]
    ]
    for method in dict.fromkeys(method for method, _, _ in found if method is not None):
        rows.append(_row(method, found))
    return "\n".join([*lines, table(rows)])


def _row(method: str, found: dict[Any, Any]) -> list[str]:
    seeds = sorted({seed for name, system, seed in found if name == method and system == LIGHTLY})
    pairs = {
        system: [
            (found[method, LIGHTLY, seed], found[method, system, seed])
            for seed in seeds
            if (method, system, seed) in found
        ]
        for system in (OURS, EQUAL_TIME)
    }
    row = [method, str(len(pairs[OURS])), _mean([found[method, LIGHTLY, seed]["knn_top1"] for seed in seeds])]
    for system in (OURS, EQUAL_TIME):
        row.append(_mean([ours["knn_top1"] for _, ours in pairs[system]]))
        row.append(_mean([ours["knn_top1"] - theirs["knn_top1"] for theirs, ours in pairs[system]], "+"))
    speeds = [theirs["cpu_seconds"] / ours["cpu_seconds"] for theirs, ours in pairs[OURS]]
    return [*row, f"{statistics.median(speeds):.2f}x" if speeds else "-"]


def _mean(values: list[float], sign: str = "") -> str:
    """In percent, with the standard deviation where there are several."""
    if not values:
        return "-"
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):{sign}.1f}{spread}"
