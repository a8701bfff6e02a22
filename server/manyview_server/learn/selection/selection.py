"""The result of a strategy.

Shapes: N rows, k of them selected.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Rows in the order in which they were selected. A prefix is the best selection of its size."""

    rows: Tensor
    """(k,) int64, on the device of the input."""
    scores: Tensor
    """(k,) floats: the strategy's score of each row, NaN if it has none."""

    def __len__(self) -> int:
        return len(self.rows)
