"""The messages to a job's owner about its images and numbers when it starts."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from manyview_server.counted_noun import number_of
from manyview_server.learn.backbones import Backbone
from manyview_server.learn.evaluation import linear_probe
from manyview_server.learn.views import pixels
from manyview_server.messages.training import AlertRaised, Level, LogWritten, TrainingStarted
from manyview_server.worker.channel import Sender
from manyview_server.worker.evaluation import knn_log
from manyview_server.worker.training.prepared_job import PreparedJob


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
        words = f"; {job.loaded_weights.words}" if job.loaded_weights and job.loaded_weights.words else ""
        yield "info", f"it starts with {job.initial_weights['file']}, SHA-256 {job.initial_weights['sha256']}{words}"
    yield "info", _images_line(job)
    evaluation, images = job.settings.evaluation, job.images
    yield from knn_log.start_lines(
        images.knn, images.why_no_knn, has_labels=images.num_classes > 0, num_held_out=images.num_held_out
    )
    if images.num_held_out and evaluation.linear_probe and images.num_classes > linear_probe.MAX_CLASSES:
        most = f"{linear_probe.MAX_CLASSES:,} labels"
        yield "warning", f"no linear probe: it takes at most {most}, and these are {images.num_classes:,}"


def inexact_resume_lines(job: PreparedJob) -> Iterator[str]:
    """Yield the reasons why a job that continues is not bit for bit the run that wrote its checkpoint."""
    if job.own_checkpoint is None:
        return
    then = {"views_version": 1, **job.own_checkpoint.state}  # the first version was not noted
    now = {
        "num_images": job.images.num_trained,
        "num_threads": job.num_threads,
        "torch": torch.__version__,
        "views_version": pixels.VERSION,
    }
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
    numerics, images, side = job.numerics, job.images, job.decoded.size
    layout = "channels_last" if numerics.channels_last else "contiguous"
    trained = number_of(images.num_trained, "image")
    return (
        f"{trained} to train on, {images.num_held_out} held out; decoded to {side} x {side} pixels, {_place(job)}; "
        f"{numerics.precision}, {layout}, {number_of(job.num_threads, 'thread')}"
    )


def _place(job: PreparedJob) -> str:
    """Return where decoded images are kept, and what happens to those for which there is no room."""
    store, num_images = job.decoded.store, job.images.adoption.num_images
    if store.capacity >= num_images:
        return f"kept in: {'device' if store.device_capacity >= num_images else 'device and memory'}"
    return (
        f"with room for {store.capacity:,} of {num_images:,} decoded images ({store.capacity * store.image_bytes:,} "
        "bytes): the others are decoded again in each epoch"
    )
