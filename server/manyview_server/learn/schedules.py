"""Values that change over training, as pure functions of the step. Steps count from 0."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The place of a step in a training. Steps count from 0."""

    step: int
    total_steps: int
    steps_per_epoch: int = 1
    """Steps in an epoch at the start of the training. Images that are adopted later make epochs longer."""
    data_epoch: int | None = None
    """Whole passes over the images before this step. None means the whole part of `epoch`."""

    @property
    def epoch(self) -> float:
        """Passes before this step over the images that the training started with. Schedules in epochs use it."""
        return self.step / self.steps_per_epoch

    @property
    def image_epoch(self) -> int:
        """Number of times that each image was trained on before this step. Masks are drawn for it, like views."""
        return int(self.epoch) if self.data_epoch is None else self.data_epoch


def linear(step: int, num_steps: int, start: float, end: float) -> float:
    """Follow a line from `start` at step 0 to exactly `end` at step `num_steps - 1`, and stay at `end` after it."""
    if step >= num_steps - 1:
        return end
    return start + (end - start) * step / (num_steps - 1)


def cosine(step: int, num_steps: int, start: float, end: float) -> float:
    """Follow half a cosine from `start` at step 0 to exactly `end` at step `num_steps - 1`, and stay at `end` after
    it."""
    if step >= num_steps - 1:
        return end
    return end - (end - start) * 0.5 * (1 + math.cos(math.pi * step / (num_steps - 1)))


def cosine_at(moment: Moment, start: float, end: float | None) -> float:
    """Follow half a cosine over the training from `start` to `end`. Without an `end` the value is constant."""
    return start if end is None else cosine(moment.step, moment.total_steps, start, end)


def warmup_cosine(step: int, num_steps: int, warmup_steps: int, end: float = 0.0) -> float:
    """Return a factor that rises linearly over `warmup_steps` to 1, then falls along half a cosine to `end`.

    The first step gets 1 / warmup_steps and not 0, so that it is not wasted.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return cosine(step - warmup_steps, num_steps - warmup_steps, 1.0, end)
