"""Results of benchmarks as JSON files of cells. A call measures one cell; a stored cell is not measured again."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


class Results:
    """The cells of one benchmark, in `results/NAME.json`."""

    def __init__(self, name: str, folder: Path = FOLDER) -> None:
        self._path = folder / f"{name}.json"

    def cells(self) -> list[dict[str, Any]]:
        """Return all cells, in the order in which they were measured."""
        found: list[dict[str, Any]] = json.loads(self._path.read_text()) if self._path.exists() else []
        return found

    def find(self, **key: Any) -> dict[str, Any] | None:
        """Return the cell with this key, or None."""
        return next((cell for cell in self.cells() if cell["key"] == key), None)

    def add(self, key: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
        """Append a cell with the machine and the time. The file is replaced as a whole."""
        cell = {"key": key, "values": values, "machine": machine(), "time": datetime.now(UTC).isoformat("T", "seconds")}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps([*self.cells(), cell], indent=1) + "\n")
        temporary.replace(self._path)
        return cell


def machine() -> str:
    """Return the processor and the number of cores, as far as they are known."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def table(rows: list[list[str]]) -> str:
    """Format rows of text in columns that are as wide as needed. The first row is the header."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def markdown(rows: list[list[str]]) -> str:
    """Format rows as a table of Markdown, for a page. The first row is the header."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])
