"""Counts, seconds and bars as text."""

from __future__ import annotations

BAR_COLUMNS = 20
_FULL, _EMPTY = "━", "─"


def number_of(count: int, noun: str, plural: str = "") -> str:
    """Return "1 image" or "3,068 images". `plural` is the plural of a noun that does not just take an s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def counted(done: int, total: int, *, are_bytes: bool = False) -> str:
    """Return "640 of 3,068", "1.5 of 46.0 MB" for bytes, or the first number alone if the total is not known."""
    if are_bytes:
        return f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"
    return f"{done:,} of {total:,}" if total else f"{done:,}"


def bar(done: int, total: int, columns: int = BAR_COLUMNS) -> str:
    """Return a bar that is as full as the work is done."""
    full = min(columns, columns * done // total) if total else 0
    return _FULL * full + _EMPTY * (columns - full)


def duration(seconds: float, *, decimals: int = 0) -> str:
    """Return "12 s", "2:05 min" or "1:02:05 h". Below ten seconds there are `decimals`: "0.4 s"."""
    if decimals and seconds < 10:
        return f"{seconds:.{decimals}f} s"
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
