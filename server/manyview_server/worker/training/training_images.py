"""The images that a job trains on at one time: which are trained on, which are held out, and in which batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from manyview_server.counted_noun import number_of
from manyview_server.learn.settings import TrainSettings
from manyview_server.messages.training import Adoption
from manyview_server.worker.evaluation import knn
from manyview_server.worker.evaluation.knn import KnnEvaluation
from manyview_server.worker.images.cache import ImageCache
from manyview_server.worker.precision import Numerics
from manyview_server.worker.training.feed import Feed
from manyview_server.worker.training_failed import TrainingFailed

MIN_BATCH_SIZE = 2


@dataclass(frozen=True, kw_only=True)
class TrainingImages:
    """A snapshot, arranged for training. A job that follows its data set has several, one after the other."""

    adoption: Adoption
    """The step and epoch since which these images are trained on."""
    num_trained: int
    num_held_out: int
    feed: Feed
    knn: KnnEvaluation | None
    """None if nothing is measured: the evaluation is off, or its result would say nothing."""
    why_no_knn: str | None
    """The reason why a result would say nothing, and what to do."""
    num_classes: int
    """The number of labels so far. Images that come later may bring more."""


def arrange(
    cache: ImageCache,
    adoption: Adoption,
    *,
    settings: TrainSettings,
    numerics: Numerics,
    device: torch.device,
    stopped: Callable[[], bool],
) -> TrainingImages:
    """Arrange all readable images of `cache` for training from the step of `adoption` on.

    Raises:
        TrainingFailed: DATASET_UNREADABLE, or DATASET_TOO_SMALL for one batch.
    """
    evaluation = settings.evaluation
    parts = knn.split(cache, evaluation)
    num_trained, num_held_out = len(parts.train), len(parts.held_out)
    batch_size = settings.batch_size_for(num_trained)
    num_unreadable = len(cache.unreadable)
    if num_unreadable == len(cache) > 0:
        reasons = ", ".join(sorted({image.reason for image in cache.unreadable}))
        images = "the only image cannot" if len(cache) == 1 else f"none of the {len(cache):,} images can"
        message = f"{images} be read: {reasons}"
        raise TrainingFailed("DATASET_UNREADABLE", message, "List the data set's UNREADABLE images; upload others.")
    if num_trained < batch_size:
        raise TrainingFailed(
            "DATASET_TOO_SMALL",
            f"{number_of(num_trained, 'image')} to train on, fewer than a batch of {batch_size} "
            f"({len(cache)} in the data set, {num_unreadable} unreadable, {num_held_out} held out for kNN)",
            _too_few_hint(num_trained),
        )
    why_no_knn = knn.why_not_measured(cache, parts, evaluation) if evaluation.knn_every_epochs else None
    is_measured = evaluation.knn_every_epochs > 0 and why_no_knn is None
    return TrainingImages(
        adoption=adoption,
        num_trained=num_trained,
        num_held_out=num_held_out,
        feed=Feed(
            cache,
            parts.train,
            batch_size=batch_size,
            seed=settings.seed,
            device=device,
            first_step=adoption.step,
            first_epoch=adoption.epoch,
        ),
        knn=KnnEvaluation(cache, parts, settings, numerics, device, stopped) if is_measured else None,
        why_no_knn=why_no_knn,
        num_classes=cache.num_classes,
    )


def _too_few_hint(num_trained: int) -> str:
    if num_trained < MIN_BATCH_SIZE:
        return "Upload more images, or hold out fewer with evaluation.knn_holdout_fraction."
    return f"Set batch_size to at most {num_trained}, or upload more images."
