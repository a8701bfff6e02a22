"""The cells as tables for docs/performance.md: medians over the rounds, and the bare networks of the first one."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.results import markdown
from benchmarks.simclr.plan import TRAININGS, Cell, Training, best_setting, sides

HEADER = ["network", "side", "format", "images/s", "lowest to highest", "beside shipped", "beside tuned",
          "CPU ms", "network ms", "of the step", "matrices", "others", "rounds"]  # fmt: skip
RATE, CPU = "images_per_second", "cpu_ms_per_image"
SHIPPED, TUNED = "lightly as shipped", "lightly tuned"


def report(cells: list[Cell]) -> str:
    """Return all tables."""
    return f"{rounds_table(cells)}\n\n{settings_table(cells)}"


def rounds_table(cells: list[Cell]) -> str:
    """Return a row for each side. A side is compared with lightly as shipped, and with lightly tuned in its format."""
    rows = [HEADER]
    for training in TRAININGS.values():
        found = _turns(cells, training)
        for (name, precision), turns in found.items():
            rates = [turn[RATE] for turn in turns]
            network_ms = turns[0]["network_ms_per_image"]
            rows.append(
                [
                    f"{training.network}, {training.image_size} px",
                    name,
                    precision,
                    f"{statistics.median(rates):.1f}",
                    f"{min(rates):.1f} to {max(rates):.1f}",
                    _beside(turns, found.get((SHIPPED, "float32"))),
                    _beside(turns, found.get((TUNED, precision))),
                    f"{statistics.median(turn[CPU] for turn in turns):.1f}",
                    f"{network_ms:.1f}",
                    f"{100 * network_ms * rates[0] / 1e3:.0f} %",
                    f"{100 * turns[0]['matrix_fraction']:.0f} %",
                    f"{statistics.median(turn['others'] for turn in turns):.1f}",
                    str(len(turns)),
                ]
            )
    return markdown(rows)


def settings_table(cells: list[Cell]) -> str:
    """Return the settings of lightly that were fastest, one row for each of its sides."""
    rows = [["network", "side", "fastest of the trials"]]
    for training in TRAININGS.values():
        # All formats that were measured on any CPU.
        for side in sides(True):
            setting = None if side.is_job else best_setting(cells, training, side)
            if setting is not None:
                rows.append([f"{training.network}, {training.image_size} px", side.name, setting.label])
    return markdown(rows)


def _turns(cells: list[Cell], training: Training) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the turns of a training's rounds by side and format, in the order of the rounds."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        if cell["key"]["part"] == "round" and cell["key"]["network"] == training.network:
            for turn in cell["values"]["turns"]:
                found.setdefault((turn["name"], turn["precision"]), []).append(turn)
    return found


def _beside(turns: list[dict[str, Any]], others: list[dict[str, Any]] | None) -> str:
    """Return the ratio of the medians of two sides, and the lowest ratio of a round."""
    if not others or others is turns:
        return ""
    pairs = [(turn[RATE], other[RATE]) for turn, other in zip(turns, others, strict=True)]
    ratio = statistics.median(turn for turn, _ in pairs) / statistics.median(other for _, other in pairs)
    return f"{ratio:.2f} ({min(turn / other for turn, other in pairs):.2f})"
