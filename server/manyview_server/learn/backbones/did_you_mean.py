"""Suggest known names for an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FEW = 40
"""All known names are listed if there are at most this many."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return one sentence for the user who wrote `name`."""
    known = list(known)
    if near := difflib.get_close_matches(name, known, n=3):
        return f"unknown backbone {name!r}; did you mean {' or '.join(map(repr, near))}?"
    if len(known) <= FEW:
        return f"unknown backbone {name!r}; known: {', '.join(known)}"
    return f"unknown backbone {name!r}; none of the {len(known):,} known names is similar"
