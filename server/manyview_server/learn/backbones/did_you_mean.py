"""A name that is not known, and the nearest that are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FEW = 40


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """One sentence for the person who wrote `name`."""
    known = list(known)
    if near := difflib.get_close_matches(name, known, n=3):
        return f"unknown backbone {name!r}; did you mean {' or '.join(map(repr, near))}?"
    told = ", ".join(known) if len(known) <= FEW else f"none of the {len(known):,} names there are is near"
    return f"unknown backbone {name!r}; {'known: ' if len(known) <= FEW else ''}{told}"
