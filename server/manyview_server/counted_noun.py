"""Counts with their nouns, as messages to people have them."""

from __future__ import annotations


def number_of(count: int, noun: str, plural: str = "") -> str:
    """Return "1 image" or "3,068 images". `plural` is the plural of a noun that does not just take an s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
