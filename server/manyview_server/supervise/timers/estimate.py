"""The estimated duration of a job, in seconds and in words."""

from __future__ import annotations

from dataclasses import dataclass

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Seconds are 0 if they are not known. `text` says how long the job takes, or why that is not known."""

    total_s: float = 0.0
    step_s: float = 0.0
    text: str


def about(seconds: float) -> str:
    """Return a duration in words, as exact as an estimate is: "about 40 min", "about 6 h"."""
    if seconds < MINUTE_S:
        return "less than a minute"
    if seconds < 1.5 * HOUR_S:
        minutes = seconds / MINUTE_S
        return f"about {round(minutes) if minutes < 10 else 5 * round(minutes / 5)} min"
    if seconds < 2 * DAY_S:
        hours = seconds / HOUR_S
        return f"about {hours:.1f} h".replace(".0 ", " ") if hours < 10 else f"about {round(hours)} h"
    return f"about {round(seconds / DAY_S)} days"


def device_words(device: str) -> str:
    """Return "this CPU" or "this GPU"."""
    return "this CPU" if device == "cpu" else "this GPU"
