"""What a job's owner is told of its images and numbers when it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from manyview_server.learn.evaluation import linear_probe
from manyview_server.learn.settings import TrainSettings
from manyview_server.messages.training import ImageUnreadable
from manyview_server.worker.channel import Channel
from manyview_server.worker.images.cache import ImageCache
from manyview_server.worker.precision import Numerics
from manyview_server.worker.training.training_images import TrainingImages

MAX_UNREADABLE_REPORTED = 1000
"""Told one by one; the rest only as a number."""


def report_unreadable(channel: Channel, cache: ImageCache) -> None:
    """Tell the front of the images of `cache` that have no pixels."""
    for image in cache.unreadable[:MAX_UNREADABLE_REPORTED]:
        channel.send(ImageUnreadable(image_id=image.image_id, reason=image.reason, message=image.message))


def of_start(
    cache: ImageCache, images: TrainingImages, settings: TrainSettings, numerics: Numerics, num_threads: int
) -> Iterator[tuple[str, str]]:
    """Log lines, (level, text)."""
    layout, side = "channels_last" if numerics.channels_last else "contiguous", cache.pixels.shape[-1]
    yield (
        "info",
        f"{images.num_trained} images to train on, {images.num_held_out} held out; decoded to {side} x {side} "
        f"pixels, kept in: {cache.location}; {numerics.precision}, {layout}, {num_threads} threads",
    )
    if cache.unreadable:
        yield "warning", f"{len(cache.unreadable)} images cannot be read and are left out"
    evaluation = settings.evaluation
    if evaluation.knn_every_epochs and not images.num_held_out:
        yield "info", "no kNN evaluation: it needs labelled images, in training and held out"
    if images.num_held_out and evaluation.linear_probe and images.num_classes > linear_probe.MAX_CLASSES:
        most = f"{linear_probe.MAX_CLASSES:,} labels"
        yield "warning", f"no linear probe: it takes at most {most}, and these are {images.num_classes:,}"


def of_inexactness(num_trained: int, num_threads: int, run: Mapping[str, Any]) -> Iterator[str]:
    """Why a job is not bit for bit the one whose checkpoint `run` describes; nothing where that is empty."""
    now = {"num_images": num_trained, "num_threads": num_threads, "torch": torch.__version__}
    for name, value in now.items():
        if run and run[name] != value:
            was = f"{run[name]} when the checkpoint was written"
            yield f"{name} is {value}, and was {was}: the job goes on, but not bit for bit"
