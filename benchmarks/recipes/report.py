"""The cells of the search for recipes as tables."""

from __future__ import annotations

from typing import Any

from benchmarks.results import table


def report(cells: list[dict[str, Any]]) -> str:
    """Return a row for each cell, the best first."""
    rows = [
        ["images", "recipe", "CPU s", "seed", "kNN", "k=20", "half", "half k=20", "raw", "raw half", "steps", "epochs"]
    ]
    for cell in sorted(cells, key=lambda c: (c["key"]["images"], c["key"]["cpu_s"], -c["values"]["half_knn_top1"])):
        key, values = cell["key"], cell["values"]
        names = (
            "knn_top1",
            "knn_top1_k20_t0.07",
            "half_knn_top1",
            "half_knn_top1_k20_t0.07",
            "raw_knn_top1",
            "raw_half_knn_top1",
        )
        rows.append(
            [
                key["images"],
                key["recipe"],
                str(key["cpu_s"]),
                str(key["seed"]),
                *(f"{100 * values[n]:.1f}" for n in names),
                str(values["steps"]),
                str(values["epochs"]),
            ]
        )
    return table(rows)
