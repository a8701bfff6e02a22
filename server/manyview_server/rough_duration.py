"""Durations in words, as exact as an estimate is."""

from __future__ import annotations

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86_400.0


def about(seconds: float) -> str:
    """Return a duration in words: "about 40 min", "about 6 h"."""
    if seconds < MINUTE_S:
        return "less than a minute"
    if seconds < 1.5 * HOUR_S:
        minutes = seconds / MINUTE_S
        return f"about {round(minutes) if minutes < 10 else 5 * round(minutes / 5)} min"
    if seconds < 2 * DAY_S:
        hours = seconds / HOUR_S
        return f"about {hours:.1f} h".replace(".0 ", " ") if hours < 10 else f"about {round(hours)} h"
    return f"about {round(seconds / DAY_S)} days"
