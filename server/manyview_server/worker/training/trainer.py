"""The trainer: one process, one job, from its settings to its last checkpoint."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import torch

from manyview_server import failpoints
from manyview_server.learn.evaluation.alarms import Alarm
from manyview_server.learn.evaluation.linear_probe import LinearProbe
from manyview_server.learn.methods import blamed
from manyview_server.learn.out_of_memory import is_lack_of_memory
from manyview_server.learn.plugins import PluginBroken
from manyview_server.learn.schedules import cosine
from manyview_server.learn.step import StepResult, train_step
from manyview_server.learn.views import make_views
from manyview_server.link.decode_notes import DecodeNotes
from manyview_server.link.frames import MessageTooLarge
from manyview_server.messages.message import Message
from manyview_server.messages.training import (
    AlertRaised,
    ImagesAdded,
    LogWritten,
    ScalarsLogged,
    SnapshotAdopted,
    StartTraining,
    StopTraining,
    TrainingEnded,
    TrainingStarted,
)
from manyview_server.worker.channel import Channel
from manyview_server.worker.images.scratch import ScratchDiskFull
from manyview_server.worker.training.checkpoint_saver import CheckpointSaver
from manyview_server.worker.training.dataset_following import Following
from manyview_server.worker.training.feed import Batch
from manyview_server.worker.training.preparation import Setup, Stopped, prepare
from manyview_server.worker.training.reporter import Progress, StepReporter, start_heartbeat
from manyview_server.worker.training.start_log import report_unreadable
from manyview_server.worker.training_failed import TrainingFailed

MAX_FAILED_CHECKPOINTS = 3
"""In a row; then going on would only lose more."""
PLUGIN_HINT = "Correct the package on the server, or do without it: the job goes on in a new one with continue_from."
OUT_OF_MEMORY_HINT = "Lower batch_size or image_size, choose a smaller backbone, or set precision to bfloat16."


def run(channel: Channel) -> None:
    """Do what the first message, a StartTraining, asks for; the last message sent is a TrainingEnded."""
    start = channel.receive()
    assert isinstance(start, StartTraining)
    trainer = Trainer(channel, start, channel.notes)
    channel.listen(trainer.hear)
    progress = trainer.progress
    start_heartbeat(channel, progress)
    try:
        outcome = trainer.train()
        ended = TrainingEnded(outcome=outcome, step=progress.step, epoch=progress.epoch)
    except TrainingFailed as error:
        ended = _failed(progress, error.reason, str(error), error.hint)
    except PluginBroken as broken:
        print(broken.error.traceback, file=sys.stderr, flush=True)
        ended = _failed(progress, "PLUGIN_FAILED", str(broken), PLUGIN_HINT)
    except MessageTooLarge as error:
        ended = _failed(progress, error.reason, error.message, "")
    except Exception as error:
        if not is_lack_of_memory(error):
            raise
        ended = _out_of_memory(progress, error)
    trainer.saver.wait()
    channel.send(ended)


class Trainer:
    """Steps through a job, from the checkpoint it continues from or from the beginning."""

    def __init__(self, channel: Channel, start: StartTraining, notes: DecodeNotes | None = None) -> None:
        self._channel = channel
        self._notes = notes
        self._start = start
        self._stop = threading.Event()
        self._added: queue.SimpleQueue[ImagesAdded] = queue.SimpleQueue()
        self.progress = self._progress = Progress()
        self.saver = CheckpointSaver(channel, Path(start.checkpoint_dir), start.attempt)

    def hear(self, message: Message) -> None:
        """Take what the front sends meanwhile; called from another thread."""
        match message:
            case StopTraining():
                self._stop.set()
            case ImagesAdded():
                self._added.put(message)

    def train(self) -> str:
        """The outcome, "succeeded" or "stopped". Raises TrainingFailed."""
        try:
            # Not held here: a job that follows its data set goes on with another one.
            self._steps(self._prepared())
        except Stopped:
            return "stopped"
        return "succeeded" if self._progress.step >= self._progress.num_steps else "stopped"

    def _prepared(self) -> Setup:
        setup = prepare(self._start, self._channel, self._progress, self._stop.is_set, self._notes)
        self._announce(setup)
        self._measure_baselines(setup)
        return setup

    def _steps(self, setup: Setup) -> None:
        reporter = StepReporter(
            self._channel,
            every_steps=setup.settings.log_every_steps,
            batch_size=setup.batch_size,
            alarms=setup.alarms,
            on_collapse=setup.settings.on_collapse,
        )
        eta = Eta(self._progress)
        following = self._following(setup)
        self._progress.stage = "training"
        while self._progress.step < setup.num_steps and not self._interrupted(reporter):
            setup = self._adopt(setup, following, reporter)
            self._steps_on(setup, reporter, eta)
        reporter.flush()
        self._save_what_is_new(setup)
        self.saver.wait()
        if self.saver.error is not None:
            message = f"checkpoints cannot be written: {self.saver.failed_in_a_row} in a row failed"
            raise TrainingFailed("CHECKPOINT_FAILED", message, "Free disk space on the server, then resume the job.")
        if reporter.alarm is not None:
            raise _stopped_by(reporter.alarm)

    def _steps_on(self, setup: Setup, reporter: StepReporter, eta: Eta) -> None:
        """The steps on these images: to the end of the job, or of the epoch where there may be others for the next."""
        step, last = self._progress.step, setup.num_steps
        if setup.follows:
            last = min(last, setup.feed.end_of_epoch(step))
        with closing(setup.feed.batches(step, last)) as batches:
            for batch in _timed(batches, reporter):
                if self._interrupted(reporter):
                    break
                self._step(setup, batch, reporter)
                self._progress.eta_s = eta.seconds(self._progress)
                if self._epoch_ended(setup):
                    reporter.flush()
                    with _excluded(reporter):
                        self._evaluate(setup)
                if self._checkpoint_due(setup):
                    reporter.flush()  # what a checkpoint covers is told before it
                    self._save(setup)

    def _interrupted(self, reporter: StepReporter) -> bool:
        return self._stop.is_set() or self.saver.failed_in_a_row >= MAX_FAILED_CHECKPOINTS or reporter.alarm is not None

    def _following(self, setup: Setup) -> Following | None:
        if not setup.follows:
            return None
        following = Following(
            setup.builder,
            setup.cache,
            setup.repeated,
            self._added,
            report=partial(report_unreadable, self._channel),
            stopped=self._stop.is_set,
        )
        following.start()
        return following

    def _adopt(self, setup: Setup, following: Following | None, reporter: StepReporter) -> Setup:
        """The setup for the coming epoch: with the images that have come in, if any."""
        step = self._progress.step
        if following is None or not setup.feed.begins_epoch(step):
            return setup
        with _excluded(reporter):
            try:
                found = following.next(step, setup.feed.epoch_of(step))
            except ScratchDiskFull:
                reporter.flush()
                self._save_what_is_new(setup)  # the job waits for room, and then goes on from this checkpoint
                raise
            if found is None:
                return setup
            cache, adoption = found
            before, now = setup.images.adoption.num_images, adoption.num_images
            setup = setup.adopt(cache, adoption)
        self._progress.num_epochs = _num_epochs(setup)
        told = SnapshotAdopted(step=step, epoch=adoption.epoch, num_images=now, num_added=now - before)
        self._channel.send(told)
        return setup

    def _checkpoint_due(self, setup: Setup) -> bool:
        settings, step = setup.settings, self._progress.step
        if settings.checkpoint_every_steps and step % settings.checkpoint_every_steps == 0:
            return True
        if 0 < settings.checkpoint_every_minutes <= self.saver.minutes_since_last:
            return True
        return self._epoch_ended(setup) and setup.is_due(settings.checkpoint_every_epochs, self._progress)

    def _step(self, setup: Setup, batch: Batch, reporter: StepReporter) -> None:
        progress, settings, numerics = self._progress, setup.settings, setup.numerics
        action = failpoints.reach("trainer.step", progress.step + 1)
        views = make_views(
            batch.images,
            batch.sizes,
            batch.image_ids,
            settings.views,
            image_size=settings.image_size,
            seed=settings.seed,
            epoch=batch.epoch,
            dtype=numerics.dtype,
            memory_format=numerics.memory_format,
        )
        with blamed(settings.method):
            result = train_step(
                setup.method,
                setup.optimizer,
                views if action != "nan" else [view * torch.nan for view in views],
                batch.image_ids.to(views[0].device, non_blocking=True),
                setup.moment(progress.step),
                precision=numerics.precision,
            )
        if setup.probe is not None:
            _teach(setup.probe, batch, result, cosine(progress.step, setup.num_steps, 1.0, 0.0))
        progress.step += 1
        progress.epoch = setup.feed.epoch_of(progress.step)
        reporter.step_done(progress.step, progress.epoch, result)

    def _epoch_ended(self, setup: Setup) -> bool:
        at_end = self._progress.step == setup.num_steps
        return at_end or setup.feed.begins_epoch(self._progress.step)

    def _evaluate(self, setup: Setup) -> None:
        knn = setup.images.knn
        if knn is None or not setup.is_due(setup.settings.evaluation.knn_every_epochs, self._progress):
            return
        self._progress.stage = "evaluating"
        self._log_scalars(knn.of_method(setup.method, setup.probe))
        self._progress.stage = "training"

    def _measure_baselines(self, setup: Setup) -> None:
        knn = setup.images.knn
        if knn is None or self._progress.step > 0:
            return
        self._progress.stage = "evaluating"
        for name, values in (("raw_pixels", knn.of_raw_pixels()), ("untrained", knn.of_method(setup.method))):
            if values is not None:
                self._log_scalars({f"knn_top1_{name}": values["knn_top1"]})

    def _log_scalars(self, values: dict[str, float] | None) -> None:
        if values is not None:
            self._channel.send(ScalarsLogged(step=self._progress.step, epoch=self._progress.epoch, values=values))

    def _save_what_is_new(self, setup: Setup) -> None:
        """Save the steps since the last checkpoint, if there are any."""
        if self._progress.step > max(setup.first_step, self.saver.last_step):
            self._save(setup)

    def _save(self, setup: Setup) -> None:
        card = setup.model_card(self._start.train_job, self._progress.step, self._progress.epoch)
        self.saver.save(setup.method, setup.optimizer, card, setup.run_json(), setup.probe)

    def _announce(self, setup: Setup) -> None:
        self._progress.step = setup.first_step
        self._progress.epoch = setup.feed.epoch_of(setup.first_step)
        self._progress.num_steps = setup.num_steps
        self._progress.num_epochs = _num_epochs(setup)
        self._channel.send(
            TrainingStarted(
                step=setup.first_step,
                num_steps=setup.num_steps,
                num_epochs=self._progress.num_epochs,
                resolved=setup.resolved(),
            )
        )
        step, epoch = setup.first_step, self._progress.epoch
        for message in setup.inexact:
            self._channel.send(AlertRaised(step=step, epoch=epoch, reason="RESUME_NOT_EXACT", message=message))
        for level, text in setup.start_log:
            self._channel.send(LogWritten(step=step, epoch=epoch, level=level, text=text))


class Eta:
    """When a job will end, at the rate of this attempt so far."""

    def __init__(self, progress: Progress) -> None:
        self._first_step, self._started = progress.step, time.perf_counter()

    def seconds(self, progress: Progress) -> float:
        """From now."""
        done = progress.step - self._first_step
        return (time.perf_counter() - self._started) / done * (progress.num_steps - progress.step)


def _teach(probe: LinearProbe, batch: Batch, result: StepResult, factor: float) -> None:
    """A step of the probe on the features that the training step made anyway, of all views."""
    features = result.representation  # (V'B, D)
    labels = batch.labels.to(features.device, non_blocking=True).repeat(len(features) // len(batch.labels))
    probe.learn(features, labels, result.accepted, factor)


def _stopped_by(alarm: Alarm) -> TrainingFailed:
    reason = "COLLAPSED" if alarm.reason == "COLLAPSE" else alarm.reason
    return TrainingFailed(reason, alarm.message, f"{alarm.hint}. With on_collapse=warn such a job goes on.")


def _num_epochs(setup: Setup) -> int:
    """How many epochs are begun, as far as can be said now."""
    return setup.feed.epoch_of(setup.num_steps - 1) + 1


def _timed(batches: Iterator[Batch], reporter: StepReporter) -> Iterator[Batch]:
    """The batches; the time that each is waited for is reported."""
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        reporter.waited_for_data(time.perf_counter() - start)
        if batch is None:
            return
        yield batch


@contextmanager
def _excluded(reporter: StepReporter) -> Iterator[None]:
    start = time.perf_counter()
    yield
    reporter.exclude(time.perf_counter() - start)


def _failed(progress: Progress, reason: str, message: str, hint: str) -> TrainingEnded:
    return TrainingEnded(
        outcome="failed", step=progress.step, epoch=progress.epoch, reason=reason, message=message, hint=hint
    )


def _out_of_memory(progress: Progress, error: BaseException) -> TrainingEnded:
    print(error, file=sys.stderr, flush=True)  # its numbers and addresses are the operator's
    where = f"at step {progress.step + 1}" if progress.stage == "training" else f"while {progress.stage}"
    message = f"there is no memory left on the device {where}"
    return _failed(progress, "DEVICE_OUT_OF_MEMORY", message, OUT_OF_MEMORY_HINT)
