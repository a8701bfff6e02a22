"""The range of temperatures that the losses can compute with."""

from __future__ import annotations

SMALLEST_TEMPERATURE = 0.001
"""Scores are cosines: a thousandth turns them into logits of 1000, which leave nothing but a hard choice."""

SMALLEST_CONTRASTIVE_TEMPERATURE = 0.01
"""Far below what is used in practice (0.05), and far above the point where e^(-2/T) leaves float64's range (0.003)."""


def check_temperature(value: float, smallest: float = SMALLEST_TEMPERATURE, name: str = "temperature") -> None:
    """Raise ValueError unless `value` is at least `smallest`."""
    if not value >= smallest:
        raise ValueError(f"{name} must be at least {smallest}, not {value}")
