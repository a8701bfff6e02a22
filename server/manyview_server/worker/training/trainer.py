"""The trainer: one process, one job, from its settings to its last checkpoint."""

from __future__ import annotations

import queue
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Literal

from manyview_server.learn.methods import Method
from manyview_server.learn.out_of_memory import is_out_of_memory
from manyview_server.learn.plugins import PluginBroken
from manyview_server.link.decode_notes import DecodeNotes
from manyview_server.link.frames import MessageTooLarge
from manyview_server.messages.message import Message
from manyview_server.messages.training import (
    ImagesAdded,
    LogWritten,
    ScalarsLogged,
    SnapshotAdopted,
    StartTraining,
    StopTraining,
    TrainingEnded,
)
from manyview_server.worker.channel import Sender, WorkerChannel
from manyview_server.worker.evaluation import knn_log
from manyview_server.worker.evaluation.knn import RAW_PIXELS, Accuracies, KnnEvaluation
from manyview_server.worker.job_images.decoded_images import DecodingStopped
from manyview_server.worker.training import start_log
from manyview_server.worker.training.checkpoint_saver import CheckpointSaver
from manyview_server.worker.training.dataset_following import DatasetFollowing
from manyview_server.worker.training.feed import BatchStream
from manyview_server.worker.training.preparation import Stopped, prepare
from manyview_server.worker.training.prepared_job import PreparedJob
from manyview_server.worker.training.progress import TrainerProgress, start_heartbeat
from manyview_server.worker.training.reporter import StepReporter
from manyview_server.worker.training.training_step import take_step
from manyview_server.worker.training_failed import TrainingFailed

MAX_FAILED_CHECKPOINTS = 3
"""The number of failed checkpoints in a row after which training ends: more steps would only be lost."""
PLUGIN_HINT = "Correct the package on the server, or continue from this job (continue_from) in one without the plugin."
OUT_OF_MEMORY_HINT = "Lower batch_size or image_size, choose a smaller backbone, or set precision to bfloat16."
CHECKPOINT_HINT = "Free disk space on the server, then resume the job."
MAX_FIRST_IMAGES = 4_000
"""The most images that baselines may decode before the first step: about five seconds on two cores."""
TRAINED, UNTRAINED = "trained", "untrained"

Outcome = Literal["succeeded", "stopped"]


def run(channel: WorkerChannel) -> None:
    """Train the job of the first message, a StartTraining. The last message sent is a TrainingEnded."""
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
        if not is_out_of_memory(error):
            raise
        ended = _out_of_memory(progress, error)
    trainer.saver.wait()
    channel.send(ended)


class Trainer:
    """Trains a job, from its start or from the checkpoint that it continues from."""

    def __init__(self, channel: Sender, start: StartTraining, notes: DecodeNotes | None = None) -> None:
        self._channel = channel
        self._notes = notes
        self._start = start
        self._stop = threading.Event()
        self._added: queue.SimpleQueue[ImagesAdded] = queue.SimpleQueue()
        self._owes_baselines = False
        self._owes_evaluation = False
        self.progress = TrainerProgress()
        self.saver = CheckpointSaver(channel, Path(start.checkpoint_dir), start.attempt)

    def hear(self, message: Message) -> None:
        """Take a message that the front sends during the training. Called from another thread."""
        match message:
            case StopTraining():
                self._stop.set()
            case ImagesAdded():
                self._added.put(message)

    def train(self) -> Outcome:
        """Prepare the job, and train it to its end or until a stop. Raises TrainingFailed."""
        try:
            job = prepare(self._start, self._channel, self.progress, self._stop.is_set, self._notes)
            with closing(job.decoded):
                self._begin(job)
                self._train(job)
        except Stopped:
            return "stopped"
        is_whole = self.progress.step >= self.progress.num_steps and not self._owes_evaluation
        return "succeeded" if is_whole else "stopped"

    def _begin(self, job: PreparedJob) -> None:
        """Report what the job starts with, and measure its baselines if that does not delay the first step."""
        self.progress.step, self.progress.num_steps = job.first_step, job.num_steps
        self.progress.epoch, self.progress.num_epochs = job.feed.epoch_of(job.first_step), job.num_epochs
        start_log.report_start(self._channel, job)
        own, knn = job.own_checkpoint, job.images.knn
        self._owes_baselines = own.owes_baselines if own else knn is not None and job.first_step == 0
        if self._owes_baselines and knn and not own and knn.num_images <= MAX_FIRST_IMAGES:
            self._measure_baselines(knn, job.method)
        self._owes_evaluation = own is not None and own.owes_evaluation
        self._write_image_log(job)

    def _train(self, job: PreparedJob) -> None:
        """Make the steps of the job. Each line of the loop is one part of a step."""
        progress, reporter = self.progress, self._reporter(job)
        following = DatasetFollowing(job.decoded, job.to_repeat, self._added) if job.follows else None
        progress.start_steps()
        self._catch_up(job, reporter)
        stream = BatchStream(job.num_steps, one_epoch_at_a_time=job.follows)
        with suppress(DecodingStopped), closing(stream) as batches:
            while progress.step < job.num_steps and not self._must_end(reporter):
                job = self._adopt(job, following, reporter)
                with reporter.waiting_for_data(), progress.waiting_for_images():
                    batch = batches.take(job.feed, progress.step)
                result = take_step(job, batch, progress.step)
                progress.step_done(job.feed.epoch_of(progress.step + 1))
                reporter.step_done(progress.step, progress.epoch, result)
                self._evaluate(job, reporter)
                self._save_if_due(job, reporter)
        self._finish(job, reporter)

    def _must_end(self, reporter: StepReporter) -> bool:
        """Must the loop end before the job does?"""
        return self._stop.is_set() or self.saver.failed_in_a_row >= MAX_FAILED_CHECKPOINTS or reporter.alarm is not None

    def _reporter(self, job: PreparedJob) -> StepReporter:
        return StepReporter(
            self._channel,
            every_steps=job.settings.log_every_steps,
            batch_size=job.batch_size,
            alarms=job.alarms,
            last_step=job.num_steps,
            on_collapse=job.settings.on_collapse,
            planned_image_s=self._start.planned_image_s,
        )

    def _adopt(self, job: PreparedJob, following: DatasetFollowing | None, reporter: StepReporter) -> PreparedJob:
        """Return the job with the images that have arrived, if an epoch starts now; otherwise the same job."""
        step = self.progress.step
        if following is None or not job.feed.starts_epoch(step):
            return job
        with reporter.excluded():
            adoption = following.next_adoption(step, job.feed.epoch_of(step))
            if adoption is None:
                return job
            num_added = adoption.num_images - job.images.adoption.num_images
            job = job.adopt(adoption)
        self.progress.num_epochs = job.num_epochs
        self._channel.send(
            SnapshotAdopted(step=step, epoch=adoption.epoch, num_images=adoption.num_images, num_added=num_added)
        )
        return job

    def _evaluate(self, job: PreparedJob, reporter: StepReporter) -> None:
        """At the end of an epoch, report its last step, and measure the features if that is due."""
        if not job.ends_epoch(self.progress.step):
            return
        reporter.flush()
        self._write_image_log(job)
        knn = job.images.knn
        if knn is None or not job.is_due(job.settings.evaluation.knn_every_epochs, self.progress.step):
            return
        self._measure_between_steps(job, knn, reporter)

    def _catch_up(self, job: PreparedJob, reporter: StepReporter) -> None:
        """Measure what the last attempt was stopped at, and note in a checkpoint that it was measured."""
        if not self._owes_evaluation or (knn := job.images.knn) is None:
            return
        self._measure_between_steps(job, knn, reporter)
        if not self._owes_evaluation:
            self._save(job)

    def _measure_between_steps(self, job: PreparedJob, knn: KnnEvaluation, reporter: StepReporter) -> None:
        with reporter.excluded():
            self._measure(job, knn)
            self.progress.start("training")

    def _measure_baselines(self, knn: KnnEvaluation, untrained: Method) -> None:
        """Measure raw pixels and the untrained network as the features are measured later, before the first step."""
        self.progress.start("measuring the baseline", 2 * knn.num_images)
        knn.on_images = self.progress.images
        self._log_baselines(knn.measure({UNTRAINED: untrained}, raw_pixels=True))

    def _measure(self, job: PreparedJob, knn: KnnEvaluation) -> None:
        """Measure the features, and with them what is still owed of the baselines, so that images are decoded once."""
        is_last = self.progress.step >= job.num_steps
        untrained = job.untrained() if self._owes_baselines else None
        methods = {TRAINED: job.method} | ({} if untrained is None else {UNTRAINED: untrained})
        raw_pixels = self._owes_baselines or is_last
        num_measured = len(methods) + (raw_pixels and not knn.knows_raw_pixels)
        self.progress.start("evaluating", num_measured * knn.num_images)
        knn.on_images = self.progress.images
        found = knn.measure(methods, {} if job.probe is None else {TRAINED: job.probe}, raw_pixels=raw_pixels)
        self._owes_evaluation = self._was_stopped(found)
        if self._owes_baselines:
            self._log_baselines(found)
        self._log_scalars(found[TRAINED])
        if is_last:
            self._compare_with_raw_pixels(found)

    def _log_baselines(self, found: dict[str, Accuracies | None]) -> None:
        for name in (RAW_PIXELS, UNTRAINED):
            if (accuracies := found.get(name)) is not None:
                self._log_scalars({f"knn_top1_{name}": accuracies["knn_top1"]})
        self._owes_baselines = self._was_stopped(found)

    def _was_stopped(self, found: dict[str, Accuracies | None]) -> bool:
        """Did a stop end this measurement? All of it is made again by the next attempt."""
        return self._stop.is_set() and None in found.values()

    def _compare_with_raw_pixels(self, found: dict[str, Accuracies | None]) -> None:
        """At the end of a job, warn if its features are worse than no learning at all."""
        accuracies, raw_pixels = found[TRAINED], found[RAW_PIXELS]
        if accuracies is None or raw_pixels is None:
            return
        if text := knn_log.end_line(accuracies, raw_pixels):
            self._channel.send(
                LogWritten(step=self.progress.step, epoch=self.progress.epoch, level="warning", text=text)
            )

    def _write_image_log(self, job: PreparedJob) -> None:
        job.image_log.write(job.decoded.findings, self.progress.step, self.progress.epoch)

    def _log_scalars(self, values: dict[str, float] | None) -> None:
        if values is not None:
            self._channel.send(ScalarsLogged(step=self.progress.step, epoch=self.progress.epoch, values=values))

    def _save_if_due(self, job: PreparedJob, reporter: StepReporter) -> None:
        if self._checkpoint_is_due(job):
            reporter.flush()  # the steps that a checkpoint covers must be reported before it
            self._save(job)

    def _checkpoint_is_due(self, job: PreparedJob) -> bool:
        settings, step = job.settings, self.progress.step
        if settings.checkpoint_every_steps and step % settings.checkpoint_every_steps == 0:
            return True
        if 0 < settings.checkpoint_every_minutes <= self.saver.minutes_since_last:
            return True
        return job.is_due(settings.checkpoint_every_epochs, step)

    def _save_new_steps(self, job: PreparedJob) -> None:
        """Save a checkpoint if there were steps since the last one."""
        if self.progress.step > max(job.first_step, self.saver.last_step):
            self._save(job)

    def _save(self, job: PreparedJob) -> None:
        card = job.model_card(self._start.train_job, self.progress.step, self.progress.epoch)
        run = {**job.run_json(), "owes_baselines": self._owes_baselines, "owes_evaluation": self._owes_evaluation}
        self.saver.save(job.method, job.optimizer, card, run, job.probe)

    def _finish(self, job: PreparedJob, reporter: StepReporter) -> None:
        """Report and save the last steps. Raises TrainingFailed if they cannot be saved or an alarm ended the loop."""
        reporter.flush()
        self._write_image_log(job)
        self._save_new_steps(job)
        self.saver.wait()
        if self.saver.error is not None:
            message = f"checkpoints cannot be written: {self.saver.failed_in_a_row} in a row failed"
            raise TrainingFailed("CHECKPOINT_FAILED", message, CHECKPOINT_HINT)
        if alarm := reporter.alarm:
            reason = "COLLAPSED" if alarm.reason == "COLLAPSE" else alarm.reason
            hint = f"{alarm.hint}. With on_collapse=warn such a job continues."
            raise TrainingFailed(reason, alarm.message, hint)


def _failed(progress: TrainerProgress, reason: str, message: str, hint: str) -> TrainingEnded:
    return TrainingEnded(
        outcome="failed", step=progress.step, epoch=progress.epoch, reason=reason, message=message, hint=hint
    )


def _out_of_memory(progress: TrainerProgress, error: BaseException) -> TrainingEnded:
    print(error, file=sys.stderr, flush=True)  # its numbers and addresses are for the operator alone
    where = f"at step {progress.step + 1}" if progress.stage == "training" else f"while {progress.stage}"
    message = f"there is no memory left on the device {where}"
    return _failed(progress, "DEVICE_OUT_OF_MEMORY", message, OUT_OF_MEMORY_HINT)
