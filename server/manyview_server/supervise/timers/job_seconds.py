"""Compute how long a job takes, as the sum of the parts that a step timer has measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from manyview_server.configuration.cross_field_rules import view_size
from manyview_server.messages.timing import StepTimed

START_S = 1.0
"""The time between the end of the queue and the first work of a trainer."""
TRIAL_IMAGES = 100
"""The images of the steps in which a trainer chooses its number format, all together, if that is not known yet."""
MAX_QUERIES = 10_000
"""The most held-out images that an evaluation classifies; see `worker.evaluation.knn`."""
SHORT_PIXELS = 2_000_000
"""Pixels of all views of a job that even a slow core with a large network trains on in a minute."""
SHORT_DECODED_PIXELS = 500_000_000
"""Pixels of all images of a data set that even a slow core decodes in half a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The images of a data set, as far as they decide how long a job takes."""

    num_images: int
    num_labelled: int
    pixels: float
    """The mean pixels of an image."""
    short_side: int
    """The median of the shorter sides, in pixels."""
    common_side: int
    """The side in pixels, if all images are squares of one size. Otherwise 0."""
    follows: bool = False
    """True if the job follows its data set. Then `max_steps` alone ends it."""

    def num_held_out(self, settings: Mapping[str, Any]) -> int:
        """Return the number of images that are held out of training."""
        evaluation = settings["evaluation"]
        return round(evaluation["knn_holdout_fraction"] * self.num_labelled) if evaluation["knn_every_epochs"] else 0

    def num_trained(self, settings: Mapping[str, Any]) -> int:
        """Return the number of images that are trained on."""
        return self.num_images - self.num_held_out(settings)

    def num_evaluated(self, settings: Mapping[str, Any]) -> int:
        """Return the number of held-out images that an evaluation classifies."""
        return min(MAX_QUERIES, self.num_held_out(settings))

    def num_decoded(self, settings: Mapping[str, Any]) -> int:
        """Return the number of images of which a long job needs the pixels."""
        return self.num_trained(settings) + self.num_evaluated(settings)

    def decode_size(self, settings: Mapping[str, Any]) -> int:
        """Return the side of the decoded images, as `worker.images.decode_size.choose_size` does."""
        twice = 2 * int(settings["image_size"])
        own = self.common_side if 0 < self.common_side <= twice else twice
        return int(settings["decode_size"] or own)


def num_steps(workload: Workload, settings: Mapping[str, Any], batch_size: int) -> int:
    """Return the steps of a job from its very start."""
    most = settings["max_steps"]
    if workload.follows:
        return int(most)
    num_steps = int(settings["epochs"]) * (workload.num_trained(settings) // batch_size)
    return num_steps if most is None else min(num_steps, int(most))


def job_seconds(
    workload: Workload,
    settings: Mapping[str, Any],
    timed: StepTimed,
    num_threads: int,
    first_step: int = 0,
    num_kept: int | None = None,
) -> float:
    """Return how long a job takes from its start to its end.

    Args:
        first_step: where it continues another job.
        num_kept: the decoded images for which the device has room, or None if it has room for all.
    """
    steps = max(0, num_steps(workload, settings, timed.batch_size) - first_step)
    is_tried = settings["precision"] == "auto" and not timed.numerics
    trial_s = timed.step_s * TRIAL_IMAGES / timed.batch_size if is_tried else 0.0
    num_evaluations = _num_evaluations(workload, settings, timed.batch_size, steps)
    once, again = _num_decoded(workload, settings, steps * timed.batch_size, num_evaluations, num_kept)
    decode_s = (once + again) * workload.pixels / 1e6 * timed.decode_s / num_threads
    evaluate_s = num_evaluations * evaluation_seconds(workload, settings, timed)
    return START_S + trial_s + decode_s + steps * timed.step_s + evaluate_s


def epoch_seconds(workload: Workload, settings: Mapping[str, Any], timed: StepTimed) -> float:
    """Return how long the steps of one epoch take."""
    return _steps_per_epoch(workload, settings, timed.batch_size) * timed.step_s


def evaluation_seconds(workload: Workload, settings: Mapping[str, Any], timed: StepTimed) -> float:
    """Return how long one evaluation takes, which embeds the held-out images and those among which they search."""
    return _num_in_evaluation(workload, settings) * timed.embed_s


def is_short(workload: Workload, settings: Mapping[str, Any]) -> bool:
    """Does a job take less than a minute, whatever the network and the device are? Then nothing need be measured."""
    pixels = sum(
        pipeline["count"] * view_size(settings["image_size"], pipeline["size_fraction"]) ** 2
        for pipeline in settings["views"]["pipelines"]
    )
    passes = int(settings["epochs"]) * workload.num_images
    if settings["max_steps"] is not None:
        passes = min(passes, int(settings["max_steps"]) * int(settings["batch_size"] or workload.num_images))
    return passes * pixels <= SHORT_PIXELS and workload.num_images * workload.pixels <= SHORT_DECODED_PIXELS


def _num_evaluations(workload: Workload, settings: Mapping[str, Any], batch_size: int, steps: int) -> int:
    """Return how often features are evaluated: before the first step, at the end of every n-th epoch, at the end."""
    every = int(settings["evaluation"]["knn_every_epochs"])
    if not every or not workload.num_held_out(settings):
        return 0
    return 1 + math.ceil(steps / _steps_per_epoch(workload, settings, batch_size) / every)


def _steps_per_epoch(workload: Workload, settings: Mapping[str, Any], batch_size: int) -> int:
    return max(1, workload.num_trained(settings) // batch_size)


def _num_in_evaluation(workload: Workload, settings: Mapping[str, Any]) -> int:
    """Return the images that an evaluation embeds: those that it classifies, and those among which they search."""
    bank = workload.num_labelled - workload.num_held_out(settings)
    return min(int(settings["evaluation"]["knn_max_bank"]), bank) + workload.num_evaluated(settings)


def _num_decoded(
    workload: Workload, settings: Mapping[str, Any], num_seen: int, num_evaluations: int, num_kept: int | None
) -> tuple[int, float]:
    """Return how many images are decoded once, and how often images are decoded again because they are not kept.

    `num_seen`: the images of all steps together.
    """
    once = min(num_seen, workload.num_trained(settings)) + workload.num_evaluated(settings)
    looked_at = num_seen + num_evaluations * _num_in_evaluation(workload, settings)
    share_kept = 1.0 if num_kept is None else min(1.0, num_kept / max(1, workload.num_decoded(settings)))
    return once, max(0, looked_at - once) * (1 - share_kept)
