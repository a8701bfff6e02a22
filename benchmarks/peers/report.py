"""The cells as tables: medians over the rounds, and the best batching of each peer."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.peers.plan import (
    CALLERS,
    MANYVIEW,
    NUMBER_FORMATS,
    PEERS,
    SIZES,
    STUBS,
    Batching,
    Cell,
    best_batching,
    rate,
)
from benchmarks.results import table

HEADER = ["px", "format", "callers", "side", "images/s", "beside manyview", "p50 ms", "p99 ms", "server CPU ms",
          "client CPU ms", "others", "errors", "rounds"]  # fmt: skip
"""`beside manyview` is the rate as a share of manyview's, from the same rounds."""


def report(cells: list[Cell]) -> str:
    """Return all tables."""
    return "\n\n".join((rounds_table(cells), batching_table(cells), summary(cells)))


def summary(cells: list[Cell]) -> str:
    """Return the short tables of the page: rates and latencies of all sides, and the batching that was best."""
    return f"{sides_table(cells)}\n\n{best_table(cells)}"


def sides_table(cells: list[Cell]) -> str:
    """Return a row for each size, format and number of callers: images/s (p50 and p99 in ms) of each side."""
    sides = (MANYVIEW, STUBS, *PEERS)
    rows = [["px", "format", "callers", *sides]]
    for number_format in NUMBER_FORMATS:
        for image_size in SIZES:
            for count in CALLERS:
                found = [list(levels(cells, side, image_size, number_format, count).values()) for side in sides]
                if any(found):
                    rows.append([str(image_size), number_format, str(count), *map(_short, found)])
    return table(rows)


def best_table(cells: list[Cell]) -> str:
    """Return the batching of each peer."""
    rows = [["px", *PEERS]]
    for image_size in SIZES:
        found = [best_batching(cells, peer, image_size) for peer in PEERS]
        rows.append([str(image_size), *(one.label if one else "-" for one in found)])
    return table(rows)


def _short(found: list[dict[str, Any]]) -> str:
    """Return images/s (p50 and p99 in ms)."""
    if not found:
        return "-"
    rate, p50_ms, p99_ms = (_median(found, name) for name in ("images_per_second", "p50_ms", "p99_ms"))
    failed = "!" if any(one["errors"] for one in found) else ""
    return f"{rate:.1f} ({p50_ms:.0f}, {p99_ms:.0f}){failed}"


def rounds_table(cells: list[Cell]) -> str:
    """Return the medians over the rounds. Within one size, format and number of callers, manyview comes first."""
    rows = [HEADER]
    for image_size in SIZES:
        for number_format in NUMBER_FORMATS:
            for count in CALLERS:
                rows += _rows(cells, image_size, number_format, count)
    return table(rows)


def _rows(cells: list[Cell], image_size: int, number_format: str, count: int) -> Iterator[list[str]]:
    ours = levels(cells, MANYVIEW, image_size, number_format, count)
    for side in (MANYVIEW, STUBS, *PEERS):
        found = levels(cells, side, image_size, number_format, count)
        if not found:
            continue
        paired = sorted(set(found) & set(ours))
        share = "-"
        if paired:
            rates = [statistics.median(one[at]["images_per_second"] for at in paired) for one in (found, ours)]
            share = f"{rates[0] / rates[1]:.2f}"
        every = list(found.values())
        numbers = [f"{_median(every, name):.1f}" for name in ("p50_ms", "p99_ms", "server_cpu_ms", "client_cpu_ms")]
        yield [
            str(image_size), number_format, str(count), side, f"{_median(every, 'images_per_second'):.1f}", share,
            *numbers, f"{_median(every, 'others'):.2f}", str(sum(one["errors"] for one in every)), str(len(every)),
        ]  # fmt: skip


def levels(cells: list[Cell], side: str, image_size: int, number_format: str, count: int) -> dict[int, dict[str, Any]]:
    """Return the figures of a side at a number of callers, by round."""
    wanted = ("round", side, image_size, number_format)
    return {
        cell["key"]["round"]: level
        for cell in cells
        if tuple(cell["key"].get(name) for name in ("part", "side", "image_size", "number_format")) == wanted
        for level in cell["values"]["levels"]
        if level["callers"] == count
    }


def _median(found: list[dict[str, Any]], name: str) -> float:
    """Return a median. Latencies of a level in which no call ended are infinite."""
    return statistics.median(float("inf") if one[name] is None else one[name] for one in found)


def batching_table(cells: list[Cell]) -> str:
    """Return the batching that was tried, and mark the best of each peer and size."""
    rows = [["px", "side", "batching", "images/s at 1, 8 and 32 callers", "geometric mean", "best"]]
    for image_size in SIZES:
        for peer in PEERS:
            for cell in cells:
                key = cell["key"]
                if key["part"] != "sweep" or (key["side"], key["image_size"]) != (peer, image_size):
                    continue
                batching = Batching(**key["batching"])
                rates = ", ".join(f"{level['images_per_second']:.1f}" for level in cell["values"]["levels"])
                best = "best" if batching == best_batching(cells, peer, image_size) else ""
                rows.append([str(image_size), peer, batching.label, rates, f"{rate(cell):.1f}", best])
    return table(rows)
