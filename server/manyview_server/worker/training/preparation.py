"""Everything a trainer needs before its first step: settings checked, images decoded, model built or restored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manyview_server.configuration import SettingsError
from manyview_server.learn import methods, optimizers
from manyview_server.learn.backbones import WeightsNotFinite
from manyview_server.learn.evaluation import linear_probe
from manyview_server.learn.evaluation.alarms import Alarms
from manyview_server.learn.evaluation.linear_probe import LinearProbe
from manyview_server.learn.methods import Method, Moment, build_method
from manyview_server.learn.optimizers import Optimizer
from manyview_server.learn.plugins import PluginBroken
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views import require_plugins
from manyview_server.link.decode_notes import CRASHED, TOO_SLOW, DecodeNotes
from manyview_server.messages.training import Adoption, StartTraining
from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.store.jobs import checkpoints
from manyview_server.store.jobs.checkpoints import ModelCard
from manyview_server.worker import checkpoint_state, precision
from manyview_server.worker.channel import Channel
from manyview_server.worker.images import cache as image_cache
from manyview_server.worker.images.cache import CacheBuilder, ImageCache
from manyview_server.worker.precision import Numerics
from manyview_server.worker.training import backbone_check, start_log
from manyview_server.worker.training.feed import Feed
from manyview_server.worker.training.initial_weights import InitialWeights
from manyview_server.worker.training.reporter import Progress
from manyview_server.worker.training.training_images import TrainingImages, arrange
from manyview_server.worker.training_failed import TrainingFailed

CONFIG_HINT = "Correct the configuration, and create the job again."
WEIGHTS_HINT = "Replace the file on the server, and create the job again."
INCOMPATIBLE_HINT = (
    "Continue it with the version and the settings of the job that wrote it, or start again with a clone of the job."
)
# The keys that every release has written into `state.json`.
NEEDED_TO_GO_ON = {"step", "settings", "numerics", "num_images", "num_threads", "num_steps", "torch"}


class Stopped(Exception):
    """StopTraining came before the first step."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A job that is ready for its first step."""

    settings: TrainSettings
    """With what was left open as it was chosen, where it shapes the model or the steps."""
    num_threads: int
    numerics: Numerics
    method: Method
    optimizer: Optimizer
    probe: LinearProbe | None
    """None where there are no labels to evaluate with, or it is off."""
    alarms: Alarms
    builder: CacheBuilder
    cache: ImageCache
    """All that is decoded: more than `images` where an earlier attempt had adopted more by now."""
    arrange: Callable[[ImageCache, Adoption], TrainingImages]
    images: TrainingImages
    first: Adoption
    """What the job began with."""
    repeated: tuple[Adoption, ...]
    """What an earlier attempt adopted after the checkpoint."""
    follows: bool
    first_step: int
    num_steps: int
    steps_per_epoch: int
    """When the job began: schedules that are told in epochs go by it."""
    initial_weights: dict[str, str] | None
    """The file that the backbone began with, and its SHA-256."""
    start_log: tuple[tuple[str, str], ...]
    """Log lines for the job's owner: (level, text)."""
    inexact: tuple[str, ...]
    """Why this is not bit for bit the run that wrote the checkpoint."""

    @property
    def feed(self) -> Feed:
        """The batches of the images that are trained on now."""
        return self.images.feed

    @property
    def batch_size(self) -> int:
        """Images in a step."""
        assert self.settings.batch_size is not None
        return self.settings.batch_size

    def moment(self, step: int) -> Moment:
        """When in the training the step after `step` steps takes place."""
        return Moment(
            step=step,
            total_steps=self.num_steps,
            steps_per_epoch=self.steps_per_epoch,
            data_epoch=self.feed.epoch_of(step),
        )

    def adopt(self, cache: ImageCache, adoption: Adoption) -> Setup:
        """The same job, on all images of `cache` from now on. Raises TrainingFailed."""
        images = self.arrange(cache, adoption)
        return replace(
            self, cache=cache, images=images, probe=_probe_for(images, self.method, self.settings, self.probe)
        )

    def is_due(self, every_epochs: int, progress: Progress) -> bool:
        """At the end of an epoch: whether it is a multiple of `every_epochs`, or the last one."""
        return progress.step >= self.num_steps or progress.epoch % every_epochs == 0

    def resolved(self) -> dict[str, Any]:
        """What the settings left open, as it was chosen: to be merged over them."""
        settled = {name: getattr(self.settings, name, None) for name in ("memory_bank_size", "queue_size")}
        return {
            **{name: value for name, value in settled.items() if value is not None},
            **self.method.encoder.backbone.chosen,
            "batch_size": self.batch_size,
            "decode_size": self.builder.size,
            "precision": self.numerics.precision,
            "memory_format": "channels_last" if self.numerics.channels_last else "contiguous",
            "optimizer": self.settings.optimizer.chosen(self.batch_size),
            **self.method.chosen,
        }

    def run_json(self) -> dict[str, Any]:
        """What a checkpoint holds beside tensors, step and model card."""
        return {
            "settings": methods.to_json(self.settings),
            "initial_weights": self.initial_weights,
            "numerics": self.numerics.to_json(),
            "num_images": self.images.num_trained,
            "adoptions": [asdict(self.first), asdict(self.images.adoption)],
            "num_threads": self.num_threads,
            "num_steps": self.num_steps,
            "alarms": self.alarms.to_json(),
            "torch": torch.__version__,
        }

    def model_card(self, train_job: str, step: int, epoch: int) -> ModelCard:
        """The model of a checkpoint written at `step`."""
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
            image_size=settings.image_size,
            mean=settings.views.normalize.mean,
            std=settings.views.normalize.std,
        )


def prepare(
    start: StartTraining,
    channel: Channel,
    progress: Progress,
    stopped: Callable[[], bool],
    notes: DecodeNotes | None = None,
) -> Setup:
    """Do what comes before the first step; `progress.stage` says at what it is.

    Raises:
        TrainingFailed: the settings, the data set or the checkpoint do not allow training.
        PluginBroken: the settings name a plugin that cannot be used.
        Stopped: `stopped` said so.
    """
    torch.set_num_threads(start.num_threads)
    device = torch.device(start.device)
    settings = _settings(start)
    require_plugins(settings.views)
    run = _checkpoint(start)
    initial = None if run else _initial_weights(start, settings)
    own = bool(run) and _is_own(Path(start.resume_from))
    checkpoints.remove_unfinished(Path(start.checkpoint_dir))
    snapshot = np.frombuffer(start.blobs[0], SNAPSHOT_DTYPE)

    progress.stage = "decoding"
    stopped = _counted(stopped, progress)
    builder = _builder(start, notes, image_cache.choose_size(snapshot, settings.image_size, settings.decode_size))
    cache = builder.decode(snapshot, stopped)
    if stopped():
        raise Stopped
    start_log.report_unreadable(channel, cache)

    progress.stage = "building"
    numerics = Numerics(**run["numerics"]) if run else precision.choose(settings, device)
    placed = partial(arrange, settings=settings, numerics=numerics, device=device, stopped=stopped)
    first, adopted, repeated = _adoptions(start, run if own else {}, len(snapshot))
    at_first = placed(cache.first(first.num_images), first)
    settings = settings.settled(at_first.num_trained)
    placed = partial(arrange, settings=settings, numerics=numerics, device=device, stopped=stopped)
    images = placed(cache.first(adopted.num_images), adopted)
    try:
        method = build_method(settings, at_first.num_trained).to(device).to(memory_format=numerics.memory_format)
    except PluginBroken:
        raise
    except ValueError as error:
        raise TrainingFailed("CONFIG_INVALID", str(error), CONFIG_HINT) from error
    assert settings.batch_size is not None
    optimizer = optimizers.build(settings.optimizer, method, settings.batch_size)
    probe = _probe_for(images, method, settings)
    if run:
        # Another job's probe may be of other labels.
        _restore(Path(start.resume_from), method, optimizer, probe if own else None)
    elif initial:
        initial.put_into(method)
    steps_per_epoch = at_first.feed.steps_per_epoch
    num_steps = settings.max_steps or 2**63
    if not start.follows:  # else it does not end with its epochs: they grow
        num_steps = min(num_steps, settings.epochs * steps_per_epoch)
    if own:
        num_steps = int(run["num_steps"])  # an image that was lost since makes epochs shorter, but not the job
    first_step = int(run["step"]) if run else 0
    if run and not own and first_step >= num_steps:
        message = f"the checkpoint to go on from is at step {first_step}, and the job would end at step {num_steps}"
        raise TrainingFailed("CONFIG_INVALID", message, "Raise epochs, or max_steps where that is set.")
    warmup_steps = round(settings.optimizer.warmup_epochs * steps_per_epoch)
    return Setup(
        settings=settings,
        num_threads=start.num_threads,
        numerics=numerics,
        method=method,
        optimizer=optimizer,
        probe=probe,
        alarms=(
            Alarms.from_json(run["alarms"])
            if own and "alarms" in run
            else Alarms(first_step=first_step, warmup_steps=warmup_steps)
        ),
        builder=builder,
        cache=cache,
        arrange=placed,
        images=images,
        first=first,
        repeated=repeated,
        follows=start.follows,
        first_step=first_step,
        num_steps=num_steps,
        steps_per_epoch=steps_per_epoch,
        initial_weights=initial.to_json() if initial else run.get("initial_weights"),
        start_log=(
            ("info", backbone_check.told(settings.backbone, method.encoder.backbone)),
            *([("info", f"it begins with {initial.file}, SHA-256 {initial.sha256}")] if initial else []),
            *start_log.of_start(cache, images, settings, numerics, start.num_threads),
        ),
        inexact=tuple(start_log.of_inexactness(images.num_trained, start.num_threads, run if own else {})),
    )


def _builder(start: StartTraining, notes: DecodeNotes | None, size: int) -> CacheBuilder:
    return CacheBuilder(
        dataset_dir=Path(start.dataset_dir),
        size=size,
        device=torch.device(start.device),
        cache_bytes=start.cache_bytes,
        scratch_dir=Path(start.checkpoint_dir),
        num_threads=start.num_threads,
        notes=notes,
        suspects=frozenset(start.suspects),
        quarantined=dict.fromkeys(start.quarantined, CRASHED) | dict.fromkeys(start.too_slow, TOO_SLOW),
    )


def _is_own(checkpoint: Path) -> bool:
    """Whether the job wrote it; a copy of another job's, with which it began, is of attempt 0."""
    name = checkpoints.parse_name(checkpoint)
    return name is not None and name[1] > 0


def _adoptions(
    start: StartTraining, run: dict[str, Any], num_images: int
) -> tuple[Adoption, Adoption, tuple[Adoption, ...]]:
    """What the job began with, what holds at its own checkpoint `run`, and what an earlier attempt adopted after it."""
    if not start.follows:
        whole = Adoption(step=0, epoch=0, num_images=num_images)
        return whole, whole, ()
    if run:
        first, adopted = (Adoption(**adoption) for adoption in run["adoptions"])
    else:
        first = adopted = start.adoptions[0]
    # Images are only ever added: what has more of them came later. What was repeated before was told twice.
    by_size = {adoption.num_images: adoption for adoption in start.adoptions}
    later = sorted(size for size in by_size if size > adopted.num_images)
    return first, adopted, tuple(by_size[size] for size in later)


def _counted(stopped: Callable[[], bool], progress: Progress) -> Callable[[], bool]:
    """`stopped`, which long work asks again and again: each question is a sign of life."""

    def ask() -> bool:
        progress.done += 1
        return stopped()

    return ask


def _settings(start: StartTraining) -> TrainSettings:
    try:
        return methods.from_json(start.settings)
    except SettingsError as error:
        raise TrainingFailed("CONFIG_INVALID", str(error), CONFIG_HINT) from error


def _initial_weights(start: StartTraining, settings: TrainSettings) -> InitialWeights | None:
    """What the backbone begins with, if not at random; it is checked that there can be such a backbone.

    Before the images are decoded, which may take long. Raises TrainingFailed and PluginBroken.
    """
    try:
        file = settings.backbone_weights
        initial = InitialWeights.read(Path(start.weights_dir), file) if file else None
        backbone_check.check(settings, initial)
    except PluginBroken:
        raise
    except WeightsNotFinite as error:
        raise TrainingFailed("CONFIG_INVALID", str(error), WEIGHTS_HINT) from error
    except ValueError as error:
        raise TrainingFailed("CONFIG_INVALID", str(error), CONFIG_HINT) from error
    return initial


def _checkpoint(start: StartTraining) -> dict[str, Any]:
    """The `state.json` of the checkpoint to continue from, its files verified; empty at the beginning.

    The front verified it a moment ago: CheckpointCorrupt ends this process, and the front looks again.
    """
    if not start.resume_from:
        return {}
    directory = Path(start.resume_from)
    checkpoints.verify(directory)
    run = checkpoints.read_state(directory)
    if missing := sorted(NEEDED_TO_GO_ON - set(run)):
        message = f"{directory.name} was written by another release: it lacks {', '.join(missing)}"
        raise TrainingFailed("CHECKPOINT_INCOMPATIBLE", message, INCOMPATIBLE_HINT)
    return run


def _probe_for(
    images: TrainingImages, method: Method, settings: TrainSettings, probe: LinearProbe | None = None
) -> LinearProbe | None:
    """The probe for these images: `probe`, where there is one already, with room for all of their classes."""
    if images.num_classes > linear_probe.MAX_CLASSES:
        return None
    if images.knn is None or not settings.evaluation.linear_probe:
        return probe
    if probe is None:
        rate = settings.evaluation.linear_learning_rate
        device = next(method.parameters()).device
        return LinearProbe(method.encoder.feature_dim, images.num_classes, rate).to(device)
    probe.grow(images.num_classes)
    return probe


def _restore(directory: Path, method: Method, optimizer: Optimizer, probe: LinearProbe | None) -> None:
    try:
        checkpoint_state.restore(directory, method, optimizer)
        if probe is not None:
            checkpoint_state.restore_probe(directory, probe)
    except WeightsNotFinite as error:
        hint = "Continue from an earlier checkpoint in a new job, or start again with a clone of the job."
        raise TrainingFailed("CHECKPOINT_CORRUPT", f"{directory.name}: {error}", hint) from error
    except ValueError as error:
        raise TrainingFailed("CHECKPOINT_INCOMPATIBLE", str(error), INCOMPATIBLE_HINT) from error
