"""The estimated duration of a job, in seconds and in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Seconds are 0 if they are not known. `text` says how long the job takes, or why that is not known."""

    total_s: float = 0.0
    step_s: float = 0.0
    text: str


def device_words(device: str) -> str:
    """Return "this CPU" or "this GPU"."""
    return "this CPU" if device == "cpu" else "this GPU"
