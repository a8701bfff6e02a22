"""Checks of arguments that need no server. Each check raises a ValueError that names the argument, its value and what
is allowed. The server would read 0 and empty values as the default, so they are refused here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def positive_s(name: str, value: float | None) -> float | None:
    """Return `value` if it is a number of seconds above 0, or None."""
    if value is not None and not value > 0:
        raise ValueError(f"{name} must be above 0, or None for the default, not {value}")
    return value


_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def duration_s(name: str, value: float | str | None) -> float:
    """Return a duration in seconds. It is a number of seconds, or a text such as "90s", "10m", "1.5h" or "2d".

    None gives 0, which the server reads as the default.
    """
    if value is None:
        return 0.0
    try:
        seconds = float(value[:-1]) * _UNITS_S[value[-1]] if isinstance(value, str) else float(value)
    except (ValueError, KeyError, IndexError, TypeError):
        raise ValueError(f"{name} must be seconds, or a text such as 90s, 10m, 1.5h or 2d, not {value!r}") from None
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{name} must be above 0, or None for the default, not {value!r}")
    return seconds


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


def one_of(name: str, value: str, known: Iterable[str]) -> str:
    """Return `value` if it is one of the known words."""
    words = list(known)
    if value in words:
        return value
    raise ValueError(f"{name} must be one of {', '.join(words)}, not {value!r}{did_you_mean(value, words)}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'WORD'?" for the end of a message, or "" if no known word is similar. Case is
    ignored."""
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word.lower()[:64], by_lower, n=1, cutoff=0.7)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


def address(value: str) -> str:
    """Return the target. Raise ValueError if it is a URL."""
    scheme, separator, rest = value.partition("://")
    if separator and scheme.lower() in ("http", "https", "grpc", "grpcs"):
        host = rest.rstrip("/") or "localhost:50051"
        tls = " with tls=True" if scheme.lower() in ("https", "grpcs") else ""
        raise ValueError(f"target must be host:port, not a URL: {value!r}; write {host!r}{tls}")
    return value
