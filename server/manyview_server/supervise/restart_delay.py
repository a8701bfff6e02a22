"""The delay before a worker that died is started again."""

from __future__ import annotations

import asyncio

MAX_DOUBLINGS = 30
"""The most doublings. Without a bound, the power would overflow after about a thousand deaths."""


def restart_delay_s(num_deaths: int, first_s: float, at_most_s: float) -> float:
    """Return the delay after `num_deaths` deaths in a row: `first_s` after the first one, twice as long after each
    further one, and never more than `at_most_s`."""
    return min(at_most_s, first_s * 2.0 ** min(max(0, num_deaths - 1), MAX_DOUBLINGS))


class RestartBackoff:
    """When a worker may be started again: at once after the first death in a row, later after each further one."""

    def __init__(self, first_s: float, at_most_s: float) -> None:
        self._first_s = first_s
        self._at_most_s = at_most_s
        self.num_deaths = 0
        """Deaths since the last answer."""
        self.not_before = 0.0
        """The time of the event loop at which the next start is allowed."""

    @property
    def left_s(self) -> float:
        """The seconds until a start is allowed; 0 or less when it is allowed."""
        return self.not_before - asyncio.get_running_loop().time()

    def count_death(self) -> None:
        """Note that a process died, or could not start."""
        self.num_deaths += 1
        delay_s = restart_delay_s(self.num_deaths - 1, self._first_s, self._at_most_s) if self.num_deaths > 1 else 0.0
        self.not_before = asyncio.get_running_loop().time() + delay_s

    def reset(self) -> None:
        """Note that a process answered."""
        self.num_deaths = 0
