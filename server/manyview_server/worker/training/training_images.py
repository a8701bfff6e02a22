"""The images that a job trains on at one time: which are trained on, which are held out, and in which batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from manyview_server.counted_noun import number_of
from manyview_server.learn.settings import TrainSettings
from manyview_server.messages.training import Adoption
from manyview_server.worker.evaluation import knn
from manyview_server.worker.evaluation.knn import KnnEvaluation
from manyview_server.worker.job_images.decoded_images import DecodedImages
from manyview_server.worker.precision import Numerics
from manyview_server.worker.training.feed import Feed
from manyview_server.worker.training_failed import TrainingFailed

MIN_BATCH_SIZE = 2


@dataclass(frozen=True, kw_only=True)
class TrainingImages:
    """A snapshot, arranged for training. A job that follows its data set has several, one after the other.

    Labels and ids alone decide what is trained on and held out. Unreadable images count until they are needed.
    """

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
    decoded: DecodedImages,
    adoption: Adoption,
    *,
    settings: TrainSettings,
    numerics: Numerics,
    stopped: Callable[[], bool],
) -> TrainingImages:
    """Arrange the images of `adoption`, the first ones of `decoded`, for training from its step on. Nothing is decoded.

    Raises:
        TrainingFailed: DATASET_TOO_SMALL for one batch.
    """
    index = decoded.index.first(adoption.num_images)
    evaluation = settings.evaluation
    parts = knn.split(index, evaluation)
    num_trained, num_held_out = len(parts.train), len(parts.held_out)
    batch_size = settings.batch_size_for(num_trained)
    if num_trained < batch_size:
        raise TrainingFailed(
            "DATASET_TOO_SMALL",
            f"{number_of(num_trained, 'image')} to train on, fewer than a batch of {batch_size} "
            f"({len(index)} in the data set, {num_held_out} held out for kNN)",
            _too_few_hint(num_trained),
        )
    why_no_knn = knn.why_not_measured(index, parts, evaluation) if evaluation.knn_every_epochs else None
    is_measured = evaluation.knn_every_epochs > 0 and why_no_knn is None
    return TrainingImages(
        adoption=adoption,
        num_trained=num_trained,
        num_held_out=num_held_out,
        feed=Feed(
            decoded,
            index,
            parts.train,
            batch_size=batch_size,
            seed=settings.seed,
            first_step=adoption.step,
            first_epoch=adoption.epoch,
        ),
        knn=KnnEvaluation(decoded, index, parts, settings, numerics, stopped) if is_measured else None,
        why_no_knn=why_no_knn,
        num_classes=index.num_classes,
    )


def _too_few_hint(num_trained: int) -> str:
    if num_trained < MIN_BATCH_SIZE:
        return "Upload more images, or hold out fewer with evaluation.knn_holdout_fraction."
    return f"Set batch_size to at most {num_trained}, or upload more images."
