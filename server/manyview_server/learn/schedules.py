"""Values that change over training, as pure functions of the step. Steps count from 0."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When in a training a step takes place. Steps count from 0."""

    step: int
    total_steps: int
    steps_per_epoch: int = 1
    """When the training began: images that are adopted later make passes longer."""
    data_epoch: int | None = None
    """Whole passes over the images before this step; None: as `epoch` says it."""

    @property
    def epoch(self) -> float:
        """What schedules in epochs go by: passes over the images of the beginning before this step."""
        return self.step / self.steps_per_epoch

    @property
    def image_epoch(self) -> int:
        """How often each image was trained on before this step: what its masks are drawn for, as its views are."""
        return int(self.epoch) if self.data_epoch is None else self.data_epoch


def linear(step: int, num_steps: int, start: float, end: float) -> float:
    """A line from `start` at step 0 to exactly `end` at step `num_steps - 1`, and `end` from there on."""
    if step >= num_steps - 1:
        return end
    return start + (end - start) * step / (num_steps - 1)


def cosine(step: int, num_steps: int, start: float, end: float) -> float:
    """Half a cosine from `start` at step 0 to exactly `end` at step `num_steps - 1`, and `end` from there on."""
    if step >= num_steps - 1:
        return end
    return end - (end - start) * 0.5 * (1 + math.cos(math.pi * step / (num_steps - 1)))


def cosine_at(moment: Moment, start: float, end: float | None) -> float:
    """Half a cosine over the training from `start` to `end`; constant without an `end`."""
    return start if end is None else cosine(moment.step, moment.total_steps, start, end)


def warmup_cosine(step: int, num_steps: int, warmup_steps: int, end: float = 0.0) -> float:
    """A factor that rises linearly over `warmup_steps` to 1, then falls along half a cosine to `end`.

    The first step has 1 / warmup_steps, not 0, so that it is not lost.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return cosine(step - warmup_steps, num_steps - warmup_steps, 1.0, end)
