"""The newest figures of both walks as tables of Markdown. docs/operations.md shows them."""

from __future__ import annotations

from typing import Any

from benchmarks.first_hour.steps import STOPPED
from benchmarks.first_hour.walk import FIRST_LOSS_SHOWN, PORT_IN_USE, SERVE

BEFORE = {
    SERVE: ("20 s", "20 s"),
    PORT_IN_USE: ("39 s", "39 s"),
    "upload": ("2.6 s", ""),
    "preview, first": ("26 s", "26 s"),
    FIRST_LOSS_SHOWN: ("45 to 75 s, or never", "30 s and more"),
    "embed files, first": ("17 s", "17 s"),
    "embed files, again": ("4.4 s for 341", "4.4 s"),
    "select, first": ("44 s", "44 s"),
    STOPPED: ("2.4 s", ""),
}
"""The time and the longest silence of each step in a walk by hand of 27 November 2026, where it has them. Two cores at
a load average of 5 to 14, 3,068 photographs."""


def newest(cells: list[dict[str, Any]], part: str) -> dict[str, Any] | None:
    """Return the newest cell of a part, `measure` or `install`."""
    return next((cell for cell in reversed(cells) if cell["key"].get("part", "measure") == part), None)


def report(cells: list[dict[str, Any]]) -> str:
    """Return a table for each part that was measured."""
    texts = []
    for part, title, columns in (
        ("install", "from installation to a picture", _install_rows),
        ("measure", "an hour", _measure_rows),
    ):
        cell = newest(cells, part)
        if cell is not None:
            values = cell["values"]
            head = (
                f"{title}: {values['files']:,} files, {cell['machine']}, load average {values['load']}, {cell['time']}"
            )
            texts.append(f"{head}\n\n{table(columns(values['steps']))}")
    return "\n\n".join(texts) or "nothing is measured yet"


def table(rows: list[list[str]]) -> str:
    """Format rows as a table of Markdown. The first row is the header."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def _measure_rows(steps: list[dict[str, Any]]) -> list[list[str]]:
    rows = [["step", "time", "longest silence", "time before", "silence before"]]
    return rows + [[*_figures(step), *BEFORE.get(step["name"], ("", ""))] for step in steps]


def _install_rows(steps: list[dict[str, Any]]) -> list[list[str]]:
    counted = [step for step in steps if step["name"] != STOPPED]
    total = sum(step["took_s"] for step in counted)
    rows = [["step", "time", "longest silence"], *map(_figures, counted)]
    return [*rows, ["all of it", f"{int(total) // 60} min {int(total) % 60} s", ""]]


def _figures(step: dict[str, Any]) -> list[str]:
    return [step["name"], f"{step['took_s']:.1f} s", f"{step['silence_s']:.1f} s"]
