"""Checks of arguments whose 0 or empty value the server would read as the default. Each check raises a ValueError that
names the argument, its value and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def positive_s(name: str, value: float | None) -> float | None:
    """Return `value` if it is a number of seconds above 0, or None."""
    if value is not None and not value > 0:
        raise ValueError(f"{name} must be above 0, or None for the default, not {value}")
    return value


def count(name: str, value: int | None, *, at_least: int = 1, at_most: int | None = None) -> int | None:
    """Return `value` if it is a number from `at_least` to `at_most`, or None."""
    if value is None or (at_least <= value and (at_most is None or value <= at_most)):
        return value
    allowed = f"at least {at_least}" if at_most is None else f"from {at_least} to {at_most:,}"
    raise ValueError(f"{name} must be {allowed}, or None for the default, not {value}")


def text(name: str, value: str | None) -> str | None:
    """Return `value` if it is text that is not empty, or None."""
    if value == "":
        raise ValueError(f"{name} must not be empty; None means the default")
    return value


def some(name: str, values: Iterable[T] | None) -> list[T] | None:
    """Return the values as a list that is not empty, or None."""
    if values is None:
        return None
    listed = list(values)
    if not listed:
        raise ValueError(f"{name} must have at least one item, or be None for the default")
    return listed
