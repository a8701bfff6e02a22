"""The place where a starting server shows what it is doing."""

from __future__ import annotations

from typing import Protocol


class StartProgress(Protocol):
    """Shows people what the start is doing."""

    def show(self, text: str, /) -> None:
        """Show a step."""

    def end(self) -> None:
        """Stop showing steps, because the server serves now."""


class Unseen:
    """Shows nothing."""

    def show(self, text: str, /) -> None:
        """Ignore a step."""

    def end(self) -> None:
        """Do nothing."""
