"""The delay before a worker that died is started again."""

MAX_DOUBLINGS = 30
"""The most doublings. Without a bound, the power would overflow after about a thousand deaths."""


def restart_delay_s(num_deaths: int, first_s: float, at_most_s: float) -> float:
    """Return the delay after `num_deaths` deaths in a row: `first_s` after the first one, twice as long after each
    further one, and never more than `at_most_s`."""
    return min(at_most_s, first_s * 2.0 ** min(max(0, num_deaths - 1), MAX_DOUBLINGS))
