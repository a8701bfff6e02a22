"""Everything that a job needs before its first step: settings checked, images listed, model built or restored."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from manyview_server.configuration import InvalidConfiguration
from manyview_server.learn import methods, optimizers
from manyview_server.learn.backbones import WeightsNotFinite
from manyview_server.learn.evaluation.alarms import Alarms
from manyview_server.learn.methods import Method, build_method
from manyview_server.learn.optimizers import Optimizer
from manyview_server.learn.plugins import PluginBroken
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views import require_plugins
from manyview_server.link.decode_notes import CRASHED, TOO_SLOW, DecodeNotes
from manyview_server.messages.training import Adoption, StartTraining
from manyview_server.store.images.snapshots import SnapshotRows
from manyview_server.store.jobs import checkpoints
from manyview_server.worker import precision
from manyview_server.worker.channel import Sender
from manyview_server.worker.evaluation.probe import probe_for
from manyview_server.worker.images.decode_size import choose_size
from manyview_server.worker.images.rgb import PixelRule
from manyview_server.worker.job_images.decoded_images import DecodedImages
from manyview_server.worker.job_images.image_decoder import ImageDecoder
from manyview_server.worker.job_images.image_index import ImageIndex
from manyview_server.worker.job_images.image_log import ImageLog
from manyview_server.worker.job_images.pixel_store import PixelStore
from manyview_server.worker.precision import Numerics
from manyview_server.worker.training.initial_weights import InitialWeights, check_backbone
from manyview_server.worker.training.prepared_job import PreparedJob
from manyview_server.worker.training.progress import TrainerProgress
from manyview_server.worker.training.resume_point import ResumePoint
from manyview_server.worker.training.training_images import arrange
from manyview_server.worker.training_failed import TrainingFailed

CONFIG_HINT = "Correct the configuration, and create the job again."
WEIGHTS_HINT = "Replace the file on the server, and create the job again."
ENDLESS = 2**63
"""The number of steps of a job that follows its data set without `max_steps`."""


class Stopped(Exception):
    """StopTraining arrived before the first step."""


def prepare(
    start: StartTraining,
    channel: Sender,
    progress: TrainerProgress,
    stopped: Callable[[], bool],
    notes: DecodeNotes | None = None,
) -> PreparedJob:
    """Do everything that comes before the first step, and note each stage in `progress`.

    Raises:
        TrainingFailed: the settings, the data set or the checkpoint do not allow training.
        PluginBroken: the settings name a plugin that cannot be used.
        Stopped: `stopped` returned True.
    """
    torch.set_num_threads(start.num_threads)
    settings = _read_settings(start)
    resume = ResumePoint.read(Path(start.resume_from)) if start.resume_from else None
    initial = None if resume else _read_initial_weights(start, settings)
    checkpoints.remove_unfinished(Path(start.checkpoint_dir))

    progress.start("building")
    image_log = ImageLog(channel)
    decoded = _decoded_images(start, settings, notes, image_log, progress, stopped)
    if stopped():
        raise Stopped
    return _build_job(start, settings, resume, initial, decoded, image_log, _counting(stopped, progress))


def _read_settings(start: StartTraining) -> TrainSettings:
    """Return the job's configuration, whose plugins are known to be usable."""
    try:
        settings = methods.from_json(start.settings)
    except InvalidConfiguration as error:
        raise TrainingFailed("CONFIG_INVALID", str(error), CONFIG_HINT) from error
    require_plugins(settings.views)
    return settings


def _read_initial_weights(start: StartTraining, settings: TrainSettings) -> InitialWeights | None:
    """Return the weights that the backbone starts with, or None if they are random.

    This also checks that the backbone can be built.
    """
    try:
        file = settings.backbone_weights
        initial = InitialWeights.read(Path(start.weights_dir), file) if file else None
        check_backbone(settings, initial)
    except PluginBroken:
        raise
    except WeightsNotFinite as error:
        raise TrainingFailed("CONFIG_INVALID", str(error), WEIGHTS_HINT) from error
    except ValueError as error:
        raise TrainingFailed("CONFIG_INVALID", str(error), CONFIG_HINT) from error
    return initial


def _counting(stopped: Callable[[], bool], progress: TrainerProgress) -> Callable[[], bool]:
    """Return `stopped`, with each call counted as a sign of life: long work calls it again and again."""

    def ask() -> bool:
        progress.done += 1
        return stopped()

    return ask


def _decoded_images(
    start: StartTraining,
    settings: TrainSettings,
    notes: DecodeNotes | None,
    image_log: ImageLog,
    progress: TrainerProgress,
    stopped: Callable[[], bool],
) -> DecodedImages:
    """Return the images of the snapshot, of which only the suspects were decoded."""
    snapshot = SnapshotRows.received(start.dataset_dir, start.blobs).all()
    size = choose_size(snapshot, settings.image_size, settings.decode_size)
    decoder = ImageDecoder(
        Path(start.dataset_dir),
        size,
        rule=PixelRule.of(settings),
        notes=notes,
        quarantined=dict.fromkeys(start.quarantined, CRASHED) | dict.fromkeys(start.too_slow, TOO_SLOW),
    )
    decoder.try_alone(snapshot, start.suspects)
    return DecodedImages(
        ImageIndex(snapshot),
        decoder,
        PixelStore(size, torch.device(start.device), start.cache_bytes, most_bytes=start.image_cache_bytes),
        num_threads=start.num_threads,
        stopped=stopped,
        on_unreadable=image_log.add,
        on_wait=progress.awaited,
    )


def _build_job(
    start: StartTraining,
    settings: TrainSettings,
    resume: ResumePoint | None,
    initial: InitialWeights | None,
    decoded: DecodedImages,
    image_log: ImageLog,
    stopped: Callable[[], bool],
) -> PreparedJob:
    """Return the job with its images arranged, and its model restored or new."""
    device = torch.device(start.device)
    own = resume if resume and resume.is_own else None
    numerics = resume.numerics if resume else precision.choose(settings, device, known=start.numerics)
    arranged = partial(arrange, decoded, numerics=numerics, stopped=stopped)
    first, current, to_repeat = _adoptions(start, own, len(decoded.index))
    first_images = arranged(first, settings=settings)
    settings = settings.for_num_images(first_images.num_trained)
    images = arranged(current, settings=settings)
    method, optimizer = _build_method(settings, first_images.num_trained, numerics, device)
    probe = probe_for(method, settings, num_classes=images.num_classes, num_held_out=images.num_held_out)
    if resume:
        resume.restore(method, optimizer, probe if own else None)  # another job's probe may be of other labels
    loaded = initial.load_into(method) if initial and not resume else None
    weights = initial.to_json() if initial else resume.initial_weights if resume else None
    steps_per_epoch = first_images.feed.steps_per_epoch
    first_step, num_steps = _first_and_last_step(start, settings, steps_per_epoch, resume)
    return PreparedJob(
        settings=settings,
        num_threads=start.num_threads,
        numerics=numerics,
        method=method,
        optimizer=optimizer,
        probe=probe,
        alarms=_alarms(settings, steps_per_epoch, first_step, own),
        decoded=decoded,
        image_log=image_log,
        arrange=partial(arranged, settings=settings),
        images=images,
        first_adoption=first,
        to_repeat=to_repeat,
        follows=start.follows,
        first_step=first_step,
        num_steps=num_steps,
        steps_per_epoch=steps_per_epoch,
        initial_weights=weights,
        loaded_weights=loaded,
        own_checkpoint=own,
        untrained=partial(_untrained, start, settings, first_images.num_trained, numerics, weights),
    )


def _adoptions(
    start: StartTraining, own: ResumePoint | None, num_images: int
) -> tuple[Adoption, Adoption, tuple[Adoption, ...]]:
    """Return what the job started with, what it trains on now, and what an earlier attempt adopted after that."""
    if not start.follows:
        whole = Adoption(step=0, epoch=0, num_images=num_images)
        return whole, whole, ()
    first, current = own.adoptions if own else (start.adoptions[0], start.adoptions[0])
    # Images are only ever added, so a larger snapshot came later. An adoption that was repeated is listed twice.
    by_size = {adoption.num_images: adoption for adoption in start.adoptions}
    later = sorted(size for size in by_size if size > current.num_images)
    return first, current, tuple(by_size[size] for size in later)


def _build_method(
    settings: TrainSettings, num_images: int, numerics: Numerics, device: torch.device
) -> tuple[Method, Optimizer]:
    """Return the method with random weights, on the device, and its optimizer."""
    try:
        method = build_method(settings, num_images).to(device).to(memory_format=numerics.memory_format)
    except PluginBroken:
        raise
    except ValueError as error:
        raise TrainingFailed("CONFIG_INVALID", str(error), CONFIG_HINT) from error
    assert settings.batch_size is not None
    return method, optimizers.build(settings.optimizer, method, settings.batch_size)


def _untrained(
    start: StartTraining,
    settings: TrainSettings,
    num_images: int,
    numerics: Numerics,
    weights: dict[str, str] | None,
) -> Method | None:
    """Build the network once more as it was before the first step, a pure function of the settings and its weights.

    Returns None if the file of its first weights is no longer the one that the job started with.
    """
    method = build_method(settings, num_images)
    if weights:
        try:
            initial = InitialWeights.read(Path(start.weights_dir), weights["file"])
        except ValueError:
            return None
        if initial.to_json() != weights:
            return None
        initial.load_into(method)
    return method.to(torch.device(start.device)).to(memory_format=numerics.memory_format)


def _first_and_last_step(
    start: StartTraining, settings: TrainSettings, steps_per_epoch: int, resume: ResumePoint | None
) -> tuple[int, int]:
    """Return how many steps were made before this attempt, and how many the whole job has."""
    first_step = resume.step if resume else 0
    if resume and resume.is_own:
        return first_step, resume.num_steps  # a release that counted only readable images may have had shorter epochs
    num_steps = settings.max_steps or ENDLESS
    if not start.follows:  # the epochs of a job that follows its data set grow: they say nothing about its length
        num_steps = min(num_steps, settings.epochs * steps_per_epoch)
    if resume and first_step >= num_steps:
        message = f"the checkpoint to continue from is at step {first_step}, but the job would end at step {num_steps}"
        raise TrainingFailed("CONFIG_INVALID", message, "Raise epochs, and max_steps if it is set.")
    return first_step, num_steps


def _alarms(settings: TrainSettings, steps_per_epoch: int, first_step: int, own: ResumePoint | None) -> Alarms:
    """Return the alarms as the job's own checkpoint has them, or new ones."""
    saved = own.alarms if own else None
    warmup_steps = round(settings.optimizer.warmup_epochs * steps_per_epoch)
    return saved or Alarms(first_step=first_step, warmup_steps=warmup_steps)
