"""The history of one scalar, and its sparkline."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"
MOST = 4096
"""The values that are kept. Beyond them, neighbors are averaged."""


class Series:
    """All values of a scalar, at a resolution that halves as they become many."""

    def __init__(self) -> None:
        self.newest = math.nan
        self._values: list[float] = []
        self._each = 1
        """The values that one kept value stands for."""
        self._open: list[float] = []

    def add(self, value: float) -> None:
        """Add a value."""
        self.newest = value
        self._open.append(value)
        if len(self._open) < self._each:
            return
        self._values.append(_mean(self._open))
        self._open.clear()
        if len(self._values) >= MOST:
            self._values = [_mean(self._values[at : at + 2]) for at in range(0, len(self._values), 2)]
            self._each *= 2

    def sparkline(self, columns: int) -> str:
        """Return all values in at most `columns` bars, from the smallest to the largest."""
        return sparkline(buckets([*self._values, *([_mean(self._open)] if self._open else [])], columns))


def buckets(values: Sequence[float], count: int) -> list[float]:
    """Return at most `count` values, each the mean of its neighbors."""
    if len(values) <= count:
        return list(values)
    edges = [len(values) * at // count for at in range(count + 1)]
    return [_mean(values[start:stop]) for start, stop in itertools.pairwise(edges)]


def sparkline(values: Sequence[float]) -> str:
    """Return the values as a row of bars from the smallest to the largest. A value that is not finite is a blank."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    return "".join(_BARS[int((value - low) / span * 7)] if math.isfinite(value) else " " for value in values)


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan
