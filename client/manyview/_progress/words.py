"""Counts, seconds and bars as text."""

from __future__ import annotations

BAR_COLUMNS = 20
_FULL, _EMPTY = "━", "─"


def counted(done: int, total: int) -> str:
    """Return "640 of 3,068", or "640" if the total is not known."""
    return f"{done:,} of {total:,}" if total else f"{done:,}"


def bar(done: int, total: int, columns: int = BAR_COLUMNS) -> str:
    """Return a bar that is as full as the work is done."""
    full = min(columns, columns * done // total) if total else 0
    return _FULL * full + _EMPTY * (columns - full)


def duration(seconds: float) -> str:
    """Return "12 s", "2:05 min" or "1:02:05 h"."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02} h"
    return f"{minutes}:{rest:02} min" if minutes else f"{whole} s"


def remaining(done: int, total: int, elapsed_s: float) -> str:
    """Return "about 12 s left" at the rate so far, or "" while the rate is not known."""
    if not 0 < done < total or elapsed_s <= 0:
        return ""
    return f"about {duration(max(1.0, elapsed_s / done * (total - done)))} left"
