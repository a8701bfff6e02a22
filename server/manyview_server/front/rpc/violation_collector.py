"""All that is wrong with a request, told at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from manyview_server.errors import InvalidArgument, Violation

T = TypeVar("T")


class Checks:
    """Collects violations; `done` raises one error that names every one of them."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def refuse(self, field: str, description: str) -> None:
        """One field that is wrong: its value, and what is allowed."""
        self._violations.append(Violation(field=field, description=description))

    def value(self, read: Callable[[], T], instead: T) -> T:
        """What `read` gives; where it raises InvalidArgument, that is noted, and `instead` keeps the reading going."""
        try:
            return read()
        except InvalidArgument as error:
            self._violations += error.violations
            return instead

    def done(self) -> None:
        """Raise InvalidArgument where anything was wrong."""
        if self._violations:
            raise InvalidArgument.of(*self._violations)
