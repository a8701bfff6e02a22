"""The number of rounds of a seeded test: a few in `make test`, and as many as `make soak` asks for."""

from __future__ import annotations

import os

VARIABLE = "MANYVIEW_SOAK"
"""The number of rounds of each test under soak; unset or empty elsewhere."""


def soaking() -> bool:
    """Does the long set run? Then nothing may be skipped."""
    return bool(os.environ.get(VARIABLE))


def rounds(count: int) -> range:
    """The seeds of a parametrisation, always the same ones: 0 to count - 1, under soak 0 to $MANYVIEW_SOAK - 1.

    Raises ValueError where the variable is no positive number.
    """
    asked = os.environ.get(VARIABLE) or str(count)
    if not asked.isdecimal() or int(asked) < 1:
        raise ValueError(f"{VARIABLE} must be a number of rounds above 0, not {asked!r}")
    return range(int(asked))
