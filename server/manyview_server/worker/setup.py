"""Everything a trainer needs before its first step: settings checked, images decoded, model built or restored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manyview_server.learn import optimizers
from manyview_server.learn import settings as learn_settings
from manyview_server.learn.backbones import choose_stem
from manyview_server.learn.memory_bank import default_size
from manyview_server.learn.methods import Method, build_method
from manyview_server.learn.optimizers import Sgd
from manyview_server.learn.settings import SettingsError, TrainSettings
from manyview_server.messages import ImageUnreadable, StartTraining
from manyview_server.store import checkpoints
from manyview_server.store.checkpoints import CheckpointCorrupt, ModelCard
from manyview_server.store.shards import SNAPSHOT_DTYPE
from manyview_server.worker import cache as image_cache
from manyview_server.worker import knn, precision, state
from manyview_server.worker.cache import ImageCache
from manyview_server.worker.channel import Channel
from manyview_server.worker.feed import Feed
from manyview_server.worker.knn import KnnEvaluation, Split
from manyview_server.worker.precision import Numerics
from manyview_server.worker.reporter import Progress, TrainingFailed

MAX_UNREADABLE_REPORTED = 1000
"""Told one by one; the rest only as a number."""


class Stopped(Exception):
    """StopTraining came before the first step."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A job that is ready for its first step."""

    settings: TrainSettings
    batch_size: int
    decode_size: int
    num_images: int
    num_threads: int
    numerics: Numerics
    method: Method
    optimizer: Sgd
    feed: Feed
    knn: KnnEvaluation | None
    first_step: int
    num_steps: int
    remarks: tuple[tuple[str, str], ...]
    """Log lines for the job's owner: (level, text)."""

    @property
    def warmup_steps(self) -> int:
        return min(self.num_steps - 1, round(self.settings.optimizer.warmup_epochs * self.feed.steps_per_epoch))

    def is_due(self, every_epochs: int, progress: Progress) -> bool:
        """At the end of an epoch: whether it is a multiple of `every_epochs`, or the last one."""
        return progress.step >= self.num_steps or progress.epoch % every_epochs == 0

    def resolved(self) -> dict[str, Any]:
        """What the settings left open, as it was chosen: to be merged over them."""
        bank_size = self.settings.memory_bank_size
        return {
            "stem": self._stem(),
            "batch_size": self.batch_size,
            "decode_size": self.decode_size,
            "precision": self.numerics.precision,
            "memory_format": "channels_last" if self.numerics.channels_last else "contiguous",
            "projection_hidden_dim": self.settings.projection_hidden_dim or self.method.backbone.feature_dim,
            "memory_bank_size": bank_size if bank_size is not None else default_size(self.num_images, self.batch_size),
            "optimizer": {"learning_rate": self.optimizer.peak_learning_rate},
        }

    def run_json(self) -> dict[str, Any]:
        """What a checkpoint holds beside tensors, step and model card."""
        return {
            "settings": learn_settings.to_json(self.settings),
            "numerics": self.numerics.to_json(),
            "num_images": self.num_images,
            "num_threads": self.num_threads,
            "num_steps": self.num_steps,
            "torch": torch.__version__,
        }

    def model_card(self, train_job: str, step: int, epoch: int) -> ModelCard:
        """The model of a checkpoint written at `step`."""
        settings = self.settings
        return ModelCard(
            train_job=train_job,
            step=step,
            epoch=epoch,
            method=settings.method,
            backbone=settings.backbone,
            backbone_width=settings.backbone_width,
            stem=self._stem(),
            feature_dim=self.method.backbone.feature_dim,
            projection_dim=settings.projection_dim,
            image_size=settings.image_size,
            mean=settings.views.normalize.mean,
            std=settings.views.normalize.std,
        )

    def _stem(self) -> str:
        return choose_stem(self.settings.image_size) if self.settings.stem == "auto" else self.settings.stem


def prepare(start: StartTraining, channel: Channel, progress: Progress, stopped: Callable[[], bool]) -> Setup:
    """Do what comes before the first step; `progress.stage` says at what it is.

    Raises:
        TrainingFailed: the settings, the data set or the checkpoint do not allow training.
        Stopped: `stopped` said so.
    """
    torch.set_num_threads(start.num_threads)
    device = torch.device(start.device)
    settings = _settings(start)
    run = _checkpoint(start)
    checkpoints.remove_unfinished(Path(start.checkpoint_dir))
    snapshot = np.frombuffer(start.blobs[0], SNAPSHOT_DTYPE)
    decode_size = image_cache.choose_size(snapshot, settings.image_size, settings.decode_size)

    progress.stage = "decoding"
    stopped = _counted(stopped, progress)
    cache = image_cache.decode_all(
        snapshot,
        Path(start.dataset_dir),
        decode_size,
        device=device,
        cache_bytes=start.cache_bytes,
        scratch_dir=Path(start.checkpoint_dir),
        num_threads=start.num_threads,
        stopped=stopped,
    )
    if stopped():
        raise Stopped
    _report_unreadable(channel, cache)
    parts = knn.split(cache, settings.evaluation)
    _check_size(settings, cache, parts)

    progress.stage = "building"
    numerics = Numerics(**run["numerics"]) if run else precision.choose(settings, device)
    num_images = len(parts.train)
    batch_size = settings.batch_size_for(num_images)
    try:
        method = build_method(settings, num_images).to(device).to(memory_format=numerics.memory_format)
    except ValueError as error:
        raise TrainingFailed("CONFIG_INVALID", str(error)) from error
    optimizer = optimizers.build(settings.optimizer, method, batch_size)
    if run:
        _restore(Path(start.resume_from), method, optimizer)
    feed = Feed(cache, parts.train, batch_size=batch_size, seed=settings.seed, device=device)
    num_steps = min(settings.epochs * feed.steps_per_epoch, settings.max_steps or 2**63)
    first_step = int(run["step"]) if run else 0
    if start.attempt == 1 and first_step >= num_steps:
        message = f"the checkpoint to go on from is at step {first_step}, and the job would end at step {num_steps}"
        raise TrainingFailed("CONFIG_INVALID", message, "Raise epochs, or max_steps where that is set.")
    evaluates = len(parts.held_out) > 0
    return Setup(
        settings=settings,
        batch_size=batch_size,
        decode_size=decode_size,
        num_images=num_images,
        num_threads=start.num_threads,
        numerics=numerics,
        method=method,
        optimizer=optimizer,
        feed=feed,
        knn=KnnEvaluation(cache, parts, settings, numerics, device, stopped) if evaluates else None,
        first_step=first_step,
        num_steps=num_steps,
        remarks=tuple(_remarks(cache, parts, settings, numerics, start, run)),
    )


def _counted(stopped: Callable[[], bool], progress: Progress) -> Callable[[], bool]:
    """`stopped`, which long work asks again and again: each question is a sign of life."""

    def ask() -> bool:
        progress.done += 1
        return stopped()

    return ask


def _settings(start: StartTraining) -> TrainSettings:
    try:
        return learn_settings.from_json(start.settings)
    except SettingsError as error:
        raise TrainingFailed("CONFIG_INVALID", str(error)) from error


def _checkpoint(start: StartTraining) -> dict[str, Any]:
    """The `state.json` of the checkpoint to continue from, its files verified; empty at the beginning."""
    if not start.resume_from:
        return {}
    try:
        checkpoints.verify(Path(start.resume_from))
        return checkpoints.read_state(Path(start.resume_from))
    except CheckpointCorrupt as error:
        raise TrainingFailed("CHECKPOINT_CORRUPT", str(error)) from error


def _restore(directory: Path, method: Method, optimizer: Sgd) -> None:
    try:
        state.restore(directory, method, optimizer)
    except ValueError as error:
        raise TrainingFailed("CHECKPOINT_CORRUPT", str(error)) from error


def _report_unreadable(channel: Channel, cache: ImageCache) -> None:
    for image in cache.unreadable[:MAX_UNREADABLE_REPORTED]:
        channel.send(ImageUnreadable(image_id=image.image_id, reason=image.reason, message=image.message))


def _check_size(settings: TrainSettings, cache: ImageCache, parts: Split) -> None:
    num_unreadable, num_all = len(cache.unreadable), len(cache.readable)
    if num_unreadable == num_all and num_all:
        reasons = ", ".join(sorted({image.reason for image in cache.unreadable}))
        raise TrainingFailed("DATASET_UNREADABLE", f"none of the {num_all} images can be read: {reasons}")
    batch_size = settings.batch_size_for(len(parts.train))
    if len(parts.train) < batch_size:
        raise TrainingFailed(
            "DATASET_TOO_SMALL",
            f"{len(parts.train)} images to train on are fewer than a batch of {batch_size} "
            f"({num_all} in the data set, {num_unreadable} unreadable, {len(parts.held_out)} held out for kNN)",
            f"Set batch_size to at most {len(parts.train)}, or upload more images.",
        )


def _remarks(
    cache: ImageCache,
    parts: Split,
    settings: TrainSettings,
    numerics: Numerics,
    start: StartTraining,
    run: dict[str, Any],
) -> list[tuple[str, str]]:
    layout = "channels_last" if numerics.channels_last else "contiguous"
    side = cache.pixels.shape[-1]
    remarks = [
        (
            "info",
            f"{len(parts.train)} images to train on, {len(parts.held_out)} held out; decoded to {side} x {side} "
            f"pixels, kept in: {cache.location}; {numerics.precision}, {layout}, {start.num_threads} threads",
        )
    ]
    if cache.unreadable:
        remarks.append(("warning", f"{len(cache.unreadable)} images cannot be read and are left out"))
    if settings.evaluation.knn_every_epochs and not len(parts.held_out):
        remarks.append(("info", "no kNN evaluation: it needs labelled images, in training and held out"))
    now = {"num_images": len(parts.train), "num_threads": start.num_threads, "torch": torch.__version__}
    for name, value in now.items():
        if run and run[name] != value:
            text = f"continues inexactly: {name} is {value}, and was {run[name]} when the checkpoint was written"
            remarks.append(("warning", text))
    return remarks
