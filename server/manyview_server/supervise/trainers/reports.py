"""The reports of a trainer, written to the store: events, progress, checkpoints and unreadable images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from manyview_server.configuration.shorthand import merged
from manyview_server.errors import Aborted
from manyview_server.link.decode_notes import OUT_OF_MEMORY
from manyview_server.messages.message import Message
from manyview_server.messages.training import (
    Adoption,
    AlertRaised,
    CheckpointWritten,
    Heartbeat,
    ImageUnreadable,
    LogWritten,
    ScalarsLogged,
    SnapshotAdopted,
    TrainingEnded,
    TrainingStarted,
)
from manyview_server.store.event_payloads import Alert, Log, Payload, Scalars
from manyview_server.store.records import Activity, Job, NewEvent, Progress
from manyview_server.store.store import Store
from manyview_server.supervise.trainers.retention import superfluous
from manyview_server.system import awake_time

MOST_SLOWDOWN = 20
"""A step may take this many times as long as the longest step before it."""

ACTIVITIES = {
    "starting": "STARTING_WORKER",
    "decoding": "DECODING",
    "building": "BUILDING_MODEL",
    "measuring the baseline": "MEASURING_BASELINE",
    "training": "TRAINING",
    "evaluating": "EVALUATING",
}
"""The contract's name for each stage of a trainer."""

log = logging.getLogger(__name__)


class Stalled(Exception):
    """The trainer is alive, but makes no progress."""


class StepWatch:
    """Notices a trainer that makes no progress for `patience_s`. A training step may take longer than that: 20 times
    as long as the longest one before it.

    Time in which the server slept or was busy with earlier messages is not counted.
    """

    def __init__(self, patience_s: float, clock: Callable[[], float] = awake_time.now) -> None:
        self._patience_s = patience_s
        self._clock = clock
        self._stage = ""
        self._step = -1
        self._done = 0
        self._since = clock()
        self._longest_s = 0.0

    @property
    def longest_s(self) -> float:
        """The seconds of the longest step, including the one that is not over yet; 0 before the first one."""
        return max(self._longest_s, self._clock() - self._since if self._stage == "training" else 0.0)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Do not count the time of this block, in which the server reads no messages of the trainer."""
        start = self._clock()
        try:
            yield
        finally:
            self._since += self._clock() - start

    def heartbeat(self, stage: str, step: int, done: int = 0) -> None:
        """Take note of a heartbeat. `done` counts what the stage has done. Raises Stalled."""
        now = self._clock()
        if (stage, step, done) != (self._stage, self._step, self._done):
            if stage == self._stage == "training" and step > self._step:
                self._longest_s = max(self._longest_s, (now - self._since) / (step - self._step))
            self._stage, self._step, self._done, self._since = stage, step, done, now
        limit_s = max(self._patience_s, MOST_SLOWDOWN * self._longest_s if stage == "training" else 0.0)
        if now - self._since > limit_s:
            what = f"step {step + 1} did not end" if stage == "training" else f"{stage} made no progress"
            raise Stalled(f"{what} within {limit_s:g} seconds")


class TrainerReports:
    """Takes the messages of one attempt at `job`, in their order."""

    def __init__(self, store: Store, job: Job, steps: StepWatch) -> None:
        self._store = store
        self._job = job
        self._steps = steps
        self._last = Progress()

    @property
    def longest_step_s(self) -> float:
        """The seconds of the trainer's longest step so far."""
        return self._steps.longest_s

    async def take(self, message: Message) -> None:
        """Store the content of a message. What must be durable is durable on return. Raises Stalled."""
        with self._steps.busy():
            await self._write(message)

    async def _write(self, message: Message) -> None:
        job_id = self._job.train_job_id
        match message:
            case Heartbeat():
                self._progress(message)
            case ScalarsLogged():
                self._reached(message)
                await self._log(Scalars(values=message.values), message.step, message.epoch)
            case LogWritten():
                await self._log(Log(level=message.level, text=message.text), message.step, message.epoch)
            case AlertRaised():
                alert = Alert(reason=message.reason, message=message.message)
                await self._log(alert, message.step, message.epoch)
            case SnapshotAdopted():
                adoption = Adoption(step=message.step, epoch=message.epoch, num_images=message.num_images)
                added = {"num_added": message.num_added, "attempt": self._job.attempt}
                await self._store.jobs.adopt(job_id, adoption, **added)
            case ImageUnreadable(reason=reason) if reason == OUT_OF_MEMORY:
                log.warning("%s", message.message, extra={"train_job": job_id, "image": f"{message.image_id:016x}"})
            case ImageUnreadable():
                verdict = (message.image_id, message.reason, message.message)
                await self._store.datasets.mark_unreadable(self._job.dataset_uid, *verdict)
            case CheckpointWritten():
                await self._checkpoint(message)
            case TrainingStarted():
                progress = Progress(
                    step=message.step,
                    num_steps=message.num_steps,
                    num_epochs=message.num_epochs,
                    activity=Activity(kind=ACTIVITIES["training"]),
                )
                self._report(progress)
                await self._store.jobs.set_resolved(job_id, merged(self._job.settings, message.resolved))
                await self._running()
            case TrainingEnded():
                # Heartbeats come seconds apart: the last one may be many steps old.
                if self._last.num_steps > 0:
                    self._report(replace(self._last, step=message.step, epoch=message.epoch, eta_s=0.0))
            case _:
                raise Stalled(f"it sent a {type(message).__name__}, which no trainer sends")

    def _progress(self, heartbeat: Heartbeat) -> None:
        self._steps.heartbeat(heartbeat.stage, heartbeat.step, heartbeat.done)
        activity = Activity(
            kind=ACTIVITIES.get(heartbeat.stage, ""), done=heartbeat.images_done, total=heartbeat.images_total
        )
        if heartbeat.num_steps == 0:  # before the first step, the progress of an earlier attempt is still shown
            self._store.jobs.report_progress(self._job.train_job_id, replace(self._job.progress, activity=activity))
            return
        progress = Progress(
            step=heartbeat.step,
            num_steps=heartbeat.num_steps,
            epoch=heartbeat.epoch,
            num_epochs=heartbeat.num_epochs,
            eta_s=heartbeat.eta_s,
            activity=activity,
        )
        self._report(progress)

    def _reached(self, scalars: ScalarsLogged) -> None:
        """Report the progress that scalars show. Heartbeats come seconds apart, and a short job may have only one."""
        if self._last.num_steps > 0:
            step_s = scalars.values.get("step_ms", 0.0) / 1000
            eta_s = (self._last.num_steps - scalars.step) * step_s or self._last.eta_s
            self._report(replace(self._last, step=scalars.step, epoch=scalars.epoch, eta_s=eta_s))

    def _report(self, progress: Progress) -> None:
        self._last = progress
        self._store.jobs.report_progress(self._job.train_job_id, progress)

    async def _running(self) -> None:
        try:
            await self._store.jobs.transition(self._job.train_job_id, {"STARTING"}, "RUNNING")
        except Aborted:  # it is CANCELLING: the trainer is being stopped
            return

    async def _checkpoint(self, written: CheckpointWritten) -> None:
        job_id, checkpoints = self._job.train_job_id, self._store.checkpoints
        await checkpoints.add(
            job_id,
            step=written.step,
            epoch=written.epoch,
            attempt=self._job.attempt,
            directory=Path(written.directory).name,
            num_bytes=written.num_bytes,
            model=written.model,
        )
        for checkpoint in superfluous(await checkpoints.list(job_id)):
            await checkpoints.delete(job_id, checkpoint.step)

    async def _log(self, payload: Payload, step: int, epoch: int) -> None:
        event = NewEvent(payload=payload, step=step, epoch=epoch, attempt=self._job.attempt)
        await self._store.events.append(self._job.train_job_id, [event])
