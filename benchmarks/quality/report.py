"""The cells of the quality benchmark as a table."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.results import table

LIGHTLY, OURS, EQUAL_TIME = "lightly", "ours", "ours, equal time"
ACCURACIES = (LIGHTLY, "ours, equal epochs", "ours, equal time")
HEADER = ["method", "seeds", LIGHTLY, ACCURACIES[1], "difference", ACCURACIES[2], "difference", "speed"]

Found = dict[tuple[str | None, str, int | None], dict[str, Any]]
Pair = tuple[dict[str, Any], dict[str, Any]]
"""lightly's values and ours, for one method and seed."""


def report(cells: list[dict[str, Any]]) -> str:
    """Return a table with the means of both sides and of their differences over paired seeds, for each method and for
    all."""
    found: Found = {
        (cell["key"].get("method"), cell["key"]["system"], cell["key"].get("seed")): cell["values"] for cell in cells
    }
    lines = [
        f"{system}: {100 * values['knn_top1']:.1f} %" for (method, system, _), values in found.items() if method is None
    ]
    methods = list(dict.fromkeys(method for method, _, _ in found if method is not None))
    rows = [_row(method, *(_pairs(found, [method], system) for system in (OURS, EQUAL_TIME))) for method in methods]
    whole = _row("all", *(_pairs(found, methods, system) for system in (OURS, EQUAL_TIME)))
    # The mean accuracy of several methods has no meaning.
    rows.append(["" if column in ACCURACIES else cell for column, cell in zip(HEADER, whole, strict=True)])
    return "\n".join([*lines, "", table([HEADER, *rows])])


def _pairs(found: Found, methods: list[str], system: str) -> list[Pair]:
    return [
        (found[method, LIGHTLY, seed], values)
        for (method, name, seed), values in found.items()
        if method in methods and name == system and (method, LIGHTLY, seed) in found
    ]


def _row(title: str, equal_epochs: list[Pair], equal_time: list[Pair]) -> list[str]:
    row = [title, str(len(equal_epochs)), _mean([theirs["knn_top1"] for theirs, _ in equal_epochs])]
    for pairs in (equal_epochs, equal_time):
        row.append(_mean([ours["knn_top1"] for _, ours in pairs]))
        row.append(_mean([ours["knn_top1"] - theirs["knn_top1"] for theirs, ours in pairs], "+"))
    speeds = [theirs["cpu_seconds"] / ours["cpu_seconds"] for theirs, ours in equal_epochs]
    return [*row, f"{statistics.median(speeds):.2f}x" if speeds else "-"]


def _mean(values: list[float], sign: str = "") -> str:
    """Format the mean in percent, with the standard deviation if there are several values."""
    if not values:
        return "-"
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):{sign}.1f}{spread}"
