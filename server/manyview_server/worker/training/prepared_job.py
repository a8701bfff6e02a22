"""A job that is ready for its first step: its settings, its images, and the model that it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from manyview_server.learn import methods
from manyview_server.learn.backbones import Loaded
from manyview_server.learn.evaluation.alarms import Alarms
from manyview_server.learn.evaluation.linear_probe import LinearProbe
from manyview_server.learn.methods import Method, Moment
from manyview_server.learn.optimizers import Optimizer
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views import pixels
from manyview_server.messages.training import Adoption
from manyview_server.store.jobs.model_card import ModelCard
from manyview_server.worker.evaluation.probe import probe_for
from manyview_server.worker.job_images.decoded_images import DecodedImages
from manyview_server.worker.job_images.image_log import ImageLog
from manyview_server.worker.precision import Numerics
from manyview_server.worker.training.feed import Feed
from manyview_server.worker.training.resume_point import ResumePoint
from manyview_server.worker.training.training_images import TrainingImages


@dataclass(frozen=True, kw_only=True)
class PreparedJob:
    """A job between two steps. Its method, optimizer and probe change in place; its images by `adopt`."""

    settings: TrainSettings
    """The configuration. What it left open is filled in where it shapes the model or the steps."""
    num_threads: int
    numerics: Numerics
    method: Method
    optimizer: Optimizer
    probe: LinearProbe | None
    """None if there are no labels to evaluate with, or if the probe is off."""
    alarms: Alarms
    decoded: DecodedImages
    """All images. They are more than `images` if an earlier attempt had already adopted more."""
    image_log: ImageLog
    arrange: Callable[[Adoption], TrainingImages]
    images: TrainingImages
    """The images that are trained on now."""
    first_adoption: Adoption
    """The images that the job started with."""
    to_repeat: tuple[Adoption, ...]
    """The adoptions of an earlier attempt after the checkpoint, in order."""
    follows: bool
    """Does the job follow its data set, so that more images may come?"""
    first_step: int
    num_steps: int
    steps_per_epoch: int
    """Steps in an epoch of the first images. Schedules in epochs count these, however many images come later."""
    initial_weights: dict[str, str] | None
    """The file that the backbone started with, and its SHA-256."""
    loaded_weights: Loaded | None
    """The way in which the names in that file became those of the network, if this attempt has read it."""
    own_checkpoint: ResumePoint | None
    """The checkpoint of this job that it continues from; None if it starts, or starts from another job's."""
    untrained: Callable[[], Method | None]
    """Builds the network as it was before the first step; None if the file of its first weights has changed since."""

    @property
    def feed(self) -> Feed:
        """The batches of the images that are trained on now."""
        return self.images.feed

    @property
    def batch_size(self) -> int:
        """Images in a step."""
        assert self.settings.batch_size is not None
        return self.settings.batch_size

    @property
    def num_epochs(self) -> int:
        """The number of epochs that the job starts, as far as is known now."""
        return self.feed.epoch_of(self.num_steps - 1) + 1

    def moment(self, step: int) -> Moment:
        """Return when in the training the step after `step` steps takes place."""
        return Moment(
            step=step,
            total_steps=self.num_steps,
            steps_per_epoch=self.steps_per_epoch,
            data_epoch=self.feed.epoch_of(step),
        )

    def ends_epoch(self, step: int) -> bool:
        """Do `step` steps complete an epoch, or the job?"""
        return step >= self.num_steps or self.feed.starts_epoch(step)

    def is_due(self, every_epochs: int, step: int) -> bool:
        """Is something that happens at the end of every n-th epoch, and of the job, due after `step` steps?"""
        at_end = step >= self.num_steps
        return at_end or (self.feed.starts_epoch(step) and self.feed.epoch_of(step) % every_epochs == 0)

    def adopt(self, adoption: Adoption) -> PreparedJob:
        """Return the same job, on the images of `adoption` from now on. Raises TrainingFailed."""
        images = self.arrange(adoption)
        probe = probe_for(
            self.method,
            self.settings,
            num_classes=images.num_classes,
            num_held_out=images.num_held_out,
            existing=self.probe,
        )
        return replace(self, images=images, probe=probe)

    def resolved(self) -> dict[str, Any]:
        """Return the values that were chosen for settings that were left open, to be merged over the settings."""
        sizes = {name: getattr(self.settings, name, None) for name in ("memory_bank_size", "queue_size")}
        return {
            **{name: value for name, value in sizes.items() if value is not None},
            **self.method.encoder.backbone.chosen,
            "batch_size": self.batch_size,
            "decode_size": self.decoded.size,
            "precision": self.numerics.precision,
            "memory_format": "channels_last" if self.numerics.channels_last else "contiguous",
            "optimizer": self.settings.optimizer.chosen(self.batch_size),
            **self.method.chosen,
        }

    def run_json(self) -> dict[str, Any]:
        """Return what a checkpoint's `state.json` holds beside the step, the epoch and the model card."""
        return {
            "settings": methods.to_json(self.settings),
            "initial_weights": self.initial_weights,
            "numerics": self.numerics.to_json(),
            "num_images": self.images.num_trained,
            "adoptions": [asdict(self.first_adoption), asdict(self.images.adoption)],
            "num_threads": self.num_threads,
            "num_steps": self.num_steps,
            "alarms": self.alarms.to_json(),
            "torch": torch.__version__,
            "views_version": pixels.VERSION,
        }

    def model_card(self, train_job: str, step: int, epoch: int) -> ModelCard:
        """Return the description of the model in a checkpoint that is written at `step`."""
        settings = self.settings
        chosen = {"stem": settings.stem, "patch_size": settings.patch_size, **self.method.encoder.backbone.chosen}
        return ModelCard(
            train_job=train_job,
            step=step,
            epoch=epoch,
            method=settings.method,
            backbone=settings.backbone,
            backbone_width=settings.backbone_width,
            stem=chosen["stem"],
            stem_relu=settings.stem_relu,
            patch_size=chosen["patch_size"],
            embedding_dim=settings.embedding_dim or 0,
            feature_dim=self.method.encoder.feature_dim,
            projection_dim=self.method.projection_dim,
            transparency=settings.transparency,
            color_profile=settings.color_profile,
            image_size=settings.image_size,
            mean=settings.views.normalize.mean,
            std=settings.views.normalize.std,
        )
