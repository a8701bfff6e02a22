"""The cells of the benchmark of views as tables for docs/performance.md."""

from __future__ import annotations

import statistics
from typing import Any

COLUMNS = (
    *("recipe", "size", "JPEGs", "format", "decode ms", "lightly", "views ms", "lightly"),
    *("decode + views", "from cache", "others"),
)
OPERATIONS = ("draw", "crop", "flip", "jitter", "gray", "blur", "solarize", "normalize")


def rate_table(cells: list[dict[str, Any]]) -> str:
    """Return the rates in Markdown: milliseconds per image of both sides, and their ratios."""
    rows = [
        f"| {' | '.join(COLUMNS)} |",
        "| --- | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for key, values in _of(cells, "rate"):
        ms = {name: statistics.median(rounds) for name, rounds in values.items() if isinstance(rounds, list)}
        side = f"{key['side']} px" if key["side"] else "as they are"
        times = [ms[name] for name in ("decode", "lightly_decode", "views", "lightly_views")]
        ratios = (ratio(ms, *parts) for parts in (("decode", "views"), ("views",)))
        rows.append(
            f"| {key['recipe']} | {key['size']} | {side} | {key['precision']} | "
            + " | ".join([*(f"{time:.3f}" for time in times), *(f"{value:.1f} times" for value in ratios)])
            + f" | {values['others']:.1f} |"
        )
    return "\n".join(rows)


def ratio(ms: dict[str, float], *parts: str) -> float:
    """Return how many times as long lightly takes for all of the parts."""
    return sum(ms[f"lightly_{part}"] for part in parts) / sum(ms[part] for part in parts)


def profile_table(cells: list[dict[str, Any]]) -> str:
    """Return the profiles in Markdown: milliseconds per image of each change."""
    rows = [
        f"| recipe | size | {' | '.join(OPERATIONS)} | all |",
        f"| --- | ---: |{' ---: |' * (1 + len(OPERATIONS))}",
    ]
    for key, values in _of(cells, "profile"):
        times = (f"{max(0.0, values[name]):.3f}" for name in (*OPERATIONS, "all"))
        rows.append(f"| {key['recipe']} | {key['size']} | {' | '.join(times)} |")
    return "\n".join(rows)


def _of(cells: list[dict[str, Any]], part: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(cell["key"], cell["values"]) for cell in cells if cell["key"]["part"] == part]
