"""Collect all violations of a request, so that one error reports them together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from manyview_server.errors import InvalidArgument, Violation

T = TypeVar("T")


class ViolationCollector:
    """The violations of one request. `raise_if_any` raises one error that names all of them."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def add(self, field: str, description: str, reason: str = "") -> None:
        """Add a violation: the path of a field, a sentence with its value and what is allowed, and perhaps a reason for
        programs."""
        self._violations.append(Violation(field=field, description=description, reason=reason))

    def read(self, parse: Callable[[], T], default: T) -> T:
        """Return `parse()`. If it raises InvalidArgument, add its violations and return `default`."""
        try:
            return parse()
        except InvalidArgument as error:
            self._violations += error.violations
            return default

    def raise_if_any(self) -> None:
        """Raise InvalidArgument if there are violations."""
        if self._violations:
            raise InvalidArgument.of(*self._violations)
