"""Rows for the tests of selection, and the strategies once more, as loops over everything in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Exact where coordinates are whole numbers, up to one rounding."""
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)))


class Brute:
    """The expected results, computed from the definitions."""

    whole_rows = staticmethod(
        lambda least=1, most=24, features=3, largest=4: st.lists(
            st.lists(st.integers(-largest, largest), min_size=features, max_size=features),
            min_size=least,
            max_size=most,
        )
    )
    """Rows of small whole numbers: many ties and equal rows, and every distance is exact in float32."""
    distance = staticmethod(distance)

    @staticmethod
    def tensor(rows: Sequence[Sequence[float]]) -> Tensor:
        return torch.tensor(rows, dtype=torch.float32)

    @staticmethod
    def farthest(rows: list[list[int]], selected: list[int]) -> tuple[float, int]:
        """The distance and the index of the row that is farthest from all selected ones; the first of equal ones."""
        left = [row for row in range(len(rows)) if row not in selected]
        reach = {row: min((distance(rows[row], rows[s]) for s in selected), default=math.inf) for row in left}
        best = max(reach.values())
        return best, min(row for row in left if reach[row] == best)

    @staticmethod
    def neighbors(rows: list[list[int]], row: int, k: int) -> list[tuple[float, int]]:
        others = [(distance(rows[row], rows[other]), other) for other in range(len(rows)) if other != row]
        return sorted(others)[:k]


@pytest.fixture(scope="session")
def brute() -> type[Brute]:
    return Brute
