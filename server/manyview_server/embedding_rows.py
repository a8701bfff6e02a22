"""Encode rows of embeddings as a caller asks for them: scaled to length 1 or not, as float32 or float16.

Shapes: n rows, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

DTYPES = {"float32": "<f4", "float16": "<f2"}
"""Little-endian numpy types by their names on the wire."""
SMALLEST_NORM = 1e-12
NON_FINITE = ("NON_FINITE", "the model's output is not finite")
FLOAT16_OVERFLOW = (
    "FLOAT16_OVERFLOW",
    "a value is beyond 65,504, the largest that float16 can hold; ask for float32 or for rows of length 1",
)
"""(reason, message) of a row that has no embedding."""

Rows = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRows:
    """Rows as bytes."""

    data: bytes
    """(n, D) elements, row by row. A row with an error is NaN."""
    errors: dict[int, tuple[str, str]]
    """Row -> (reason, message) for each row that is not finite."""


def encode(rows: Rows, *, unit: bool, data_type: str) -> EncodedRows:
    """Return the rows as the caller asks for them. A row that overflows gets an error and does not become infinite.

    Args:
        rows: (n, D) float32 or float64. They are not changed.
        unit: scale each row to length 1.
        data_type: one of `DTYPES`.
    """
    finite: npt.NDArray[np.bool_] = np.all(np.isfinite(rows), axis=1)  # (n,)
    errors = dict.fromkeys(np.flatnonzero(~finite).tolist(), NON_FINITE)
    found = np.where(finite[:, None], rows, np.nan)
    if unit:
        # The norms are computed in float64, because the squares of large values do not fit into float32.
        norms = np.linalg.norm(found.astype(np.float64), axis=1, keepdims=True)
        found = found / np.maximum(norms, SMALLEST_NORM)
    with np.errstate(over="ignore", invalid="ignore"):
        found = found.astype(DTYPES[data_type])
    overflowed = finite & ~np.isfinite(found).all(axis=1)
    found[overflowed] = np.nan
    reason = FLOAT16_OVERFLOW if data_type == "float16" else NON_FINITE
    errors |= dict.fromkeys(np.flatnonzero(overflowed).tolist(), reason)
    return EncodedRows(data=found.tobytes(), errors=errors)
