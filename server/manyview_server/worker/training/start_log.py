"""The messages to a job's owner about its images and numbers when it starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from manyview_server.counted_noun import number_of
from manyview_server.learn.backbones import Backbone
from manyview_server.learn.evaluation import linear_probe
from manyview_server.messages.training import AlertRaised, ImageUnreadable, Level, LogWritten, TrainingStarted
from manyview_server.worker.channel import Sender
from manyview_server.worker.evaluation import knn_log
from manyview_server.worker.images.cache import DarkImage, ImageCache
from manyview_server.worker.training.prepared_job import PreparedJob
from manyview_server.worker.training.progress import TrainerProgress

MAX_UNREADABLE_REPORTED = 1000
"""The most unreadable images that are reported one by one. The start log counts all of them."""


def report_unreadable(channel: Sender, cache: ImageCache) -> None:
    """Report to the front which images of `cache` have no pixels."""
    for image in cache.unreadable[:MAX_UNREADABLE_REPORTED]:
        channel.send(ImageUnreadable(image_id=image.image_id, reason=image.reason, message=image.message))


def report_added(channel: Sender, progress: TrainerProgress, cache: ImageCache) -> None:
    """Report to the front, and to the log, about images that arrived while a job trains."""
    report_unreadable(channel, cache)
    if cache.dark:
        text = dark_line(cache.dark)
        channel.send(LogWritten(step=progress.step, epoch=progress.epoch, level="warning", text=text))


def report_start(channel: Sender, job: PreparedJob) -> None:
    """Report what a job starts with or continues from, what was chosen for it, and whether it will be exact."""
    step, epoch = job.first_step, job.feed.epoch_of(job.first_step)
    channel.send(
        TrainingStarted(step=step, num_steps=job.num_steps, num_epochs=job.num_epochs, resolved=job.resolved())
    )
    for message in inexact_resume_lines(job):
        channel.send(AlertRaised(step=step, epoch=epoch, reason="RESUME_NOT_EXACT", message=message))
    for level, text in start_lines(job):
        channel.send(LogWritten(step=step, epoch=epoch, level=level, text=text))


def start_lines(job: PreparedJob) -> Iterator[tuple[Level, str]]:
    """Yield the log lines of a job that is about to start or to continue: (level, text)."""
    yield "info", backbone_line(job.settings.backbone, job.method.encoder.backbone)
    if job.initial_weights and job.first_step == 0:
        yield "info", f"it starts with {job.initial_weights['file']}, SHA-256 {job.initial_weights['sha256']}"
    yield "info", _images_line(job)
    if job.cache.unreadable:
        unreadable = number_of(
            len(job.cache.unreadable), "image cannot be read and is", "images cannot be read and are"
        )
        yield "warning", f"{unreadable} left out"
    if job.cache.dark:
        yield "warning", dark_line(job.cache.dark)
    evaluation, images = job.settings.evaluation, job.images
    yield from knn_log.start_lines(
        images.knn, images.why_no_knn, has_labels=images.num_classes > 0, num_held_out=images.num_held_out
    )
    if images.num_held_out and evaluation.linear_probe and images.num_classes > linear_probe.MAX_CLASSES:
        most = f"{linear_probe.MAX_CLASSES:,} labels"
        yield "warning", f"no linear probe: it takes at most {most}, and these are {images.num_classes:,}"


def dark_line(images: Sequence[DarkImage]) -> str:
    """Return one line about images of 16 bits whose values are small."""
    most, first = max(image.used_bits for image in images), f"id:{images[0].image_id:016x}"
    count = number_of(len(images), "image has", "images have")
    return (
        f"{count} 16 bits per channel and no value above {2**most - 1:,} of 65,535, which is nearly black to the "
        f"network: multiply the values by {2 ** (16 - most)} and upload them again; the first such image is {first}"
    )


def inexact_resume_lines(job: PreparedJob) -> Iterator[str]:
    """Yield the reasons why a job that continues is not bit for bit the run that wrote its checkpoint."""
    if job.own_checkpoint is None:
        return
    then = job.own_checkpoint.state
    now = {"num_images": job.images.num_trained, "num_threads": job.num_threads, "torch": torch.__version__}
    for name, value in now.items():
        if then[name] != value:
            was = f"{then[name]} when the checkpoint was written"
            yield f"{name} is {value}, but was {was}: the job continues, but not bit for bit"


def backbone_line(name: str, backbone: Backbone) -> str:
    """Return one line about the network that is trained."""
    num_parameters = sum(parameter.numel() for parameter in backbone.parameters())
    chosen = "".join(f", {field} {value}" for field, value in backbone.chosen.items())
    return f"backbone {name}{chosen}: {backbone.feature_dim} features, {num_parameters:,} parameters"


def _images_line(job: PreparedJob) -> str:
    numerics, images, side = job.numerics, job.images, job.cache.pixels.shape[-1]
    layout = "channels_last" if numerics.channels_last else "contiguous"
    trained = number_of(images.num_trained, "image")
    return (
        f"{trained} to train on, {images.num_held_out} held out; decoded to {side} x {side} "
        f"pixels, kept in: {job.cache.location}; {numerics.precision}, {layout}, {number_of(job.num_threads, 'thread')}"
    )
