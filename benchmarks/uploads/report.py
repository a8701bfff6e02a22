"""The tables of all cells: medians over the rounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.results import Results, markdown, table
from benchmarks.uploads.cell import SIDES

RESULTS = Results("uploads")
NAMES = {
    "echo": "plain stream",
    "memory": "from memory",
    "folder": "from a folder",
    "bare": "hashes, write, syncs alone",
}
SIDE_HEADER = ["images", "code", "sent", "images/s", "MB/s", "ratio", "client CPU, µs/image", "server CPU, µs/image"]
WAIT_HEADER = ["images", "code", "health p50, ms", "p99, ms", "longest callback, ms", "syncs", "batches", "peak, MiB"]


def report(cells: Sequence[dict[str, Any]]) -> str:
    """Return all cells as two tables: medians over the rounds."""
    return "\n\n".join(table(rows) for rows in both_tables(cells))


def document(cells: Sequence[dict[str, Any]] | None = None) -> str:
    """Return all cells as the two tables of the page on performance."""
    tables = both_tables(RESULTS.cells() if cells is None else cells)
    return "\n\n".join(map(markdown, tables))


def both_tables(cells: Sequence[dict[str, Any]]) -> tuple[list[list[str]], list[list[str]]]:
    """Return the rows of both tables, the headers included."""
    sides, waits = [SIDE_HEADER], [WAIT_HEADER]
    for cell in sorted(cells, key=lambda cell: (cell["key"]["images"], cell["key"]["code"])):
        name, values = [cell["key"]["images"], cell["key"]["code"]], cell["values"]
        sides += [[*name, NAMES[side], *side_columns(values, side)] for side in SIDES if side in values]
        health = [f"{values['health'][key]:.1f}" for key in ("p50_ms", "p99_ms")]
        syncs = sum(values["syncs"].get(key, 0) for key in ("fsync", "fdatasync"))
        counts = [str(syncs), str(values["syncs"].get("batches", 0)), f"{values['server_peak_mib']:.0f}"]
        waits.append([*name, *health, f"{1e3 * values['longest_callback_s']:.0f}", *counts])
    return sides, waits


def side_columns(values: dict[str, Any], side: str) -> list[str]:
    """Return the columns of one side: images/s, MB/s, ratio to echo, and the CPU time of client and server."""
    num_images = values["num_images"]
    seconds, echo = (statistics.median(one["seconds"] for one in values[name]) for name in (side, "echo"))
    cpu = [1e6 * statistics.median(one[f"{end}_cpu_s"] for one in values[side]) for end in ("client", "server")]
    rates = [f"{num_images / seconds:,.0f}", f"{values['num_bytes'] / seconds / 1e6:.0f}", f"{echo / seconds:.2f}"]
    return [*rates, *(f"{one / num_images:.0f}" for one in cpu)]
