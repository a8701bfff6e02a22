"""Values that change over training, as pure functions of the step. Steps count from 0."""

from __future__ import annotations

import math


def cosine(step: int, num_steps: int, start: float, end: float) -> float:
    """Half a cosine from `start` at step 0 to exactly `end` at step `num_steps - 1`, and `end` from there on."""
    if step >= num_steps - 1:
        return end
    return end - (end - start) * 0.5 * (1 + math.cos(math.pi * step / (num_steps - 1)))


def warmup_cosine(step: int, num_steps: int, warmup_steps: int, end: float = 0.0) -> float:
    """A factor that rises linearly over `warmup_steps` to 1, then falls along half a cosine to `end`.

    The first step has 1 / warmup_steps, not 0, so that it is not lost.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return cosine(step - warmup_steps, num_steps - warmup_steps, 1.0, end)


def line(at: float, length: float, start: float, end: float) -> float:
    """A line from `start` at 0 to exactly `end` at `length`, and `end` from there on."""
    return end if at >= length else start + (end - start) * at / length
