"""The largest value of a number in the last moments."""

from __future__ import annotations


class RecentPeak:
    """Remembers the largest value for one to two windows. Times are in seconds, and do not fall."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._since = 0.0
        self._before = 0
        """The largest value of the window before."""
        self._now = 0
        """The largest value since `_since`."""

    def note(self, value: int, at: float) -> None:
        """Note the number's value."""
        self._advance(at)
        self._now = max(self._now, value)

    def value(self, at: float) -> int:
        """Return the largest value that was noted."""
        self._advance(at)
        return max(self._before, self._now)

    def _advance(self, at: float) -> None:
        passed = at - self._since
        if passed >= 2 * self._window_s:
            self._before, self._now, self._since = 0, 0, at
        elif passed >= self._window_s:
            self._before, self._now = self._now, 0
            self._since += self._window_s
