"""Train jobs: from what is wanted to what runs.

One reconciler, which is the start-up path too: a job that is STARTING or RUNNING without a trainer of ours has lost it
and recovers, one that is PAUSING or CANCELLING without one is paused or cancelled, and a free device takes the oldest
job that waits, recovering ones first. One trainer per device at a time.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace

from manyview_server.errors import Aborted, FailedPrecondition
from manyview_server.link.decode_notes import CRASHED, TOO_SLOW
from manyview_server.messages.training import StartTraining
from manyview_server.store.event_payloads import Alert
from manyview_server.store.job_states import JobState
from manyview_server.store.jobs.job_verbs import PAUSE
from manyview_server.store.records import Checkpoint, Failure, Job, NewEvent
from manyview_server.store.store import Store
from manyview_server.supervise.cores import CoreBudget
from manyview_server.supervise.process import WORKER_COMMAND
from manyview_server.supervise.restart_delay import restart_delay_s
from manyview_server.supervise.trainers import dataset_growth, retention, snapshot_limit
from manyview_server.supervise.trainers.attempt import Ending, Patience, TrainerAttempt
from manyview_server.supervise.trainers.crashing_images import PoisonHunt
from manyview_server.supervise.trainers.reports import StepWatch, TrainerReports
from manyview_server.system import open_files

log = logging.getLogger(__name__)

# Restarts without a new checkpoint.
MAX_RESTARTS = 3
# A look at the jobs without being woken: after an error of the store's, say.
RECONCILE_S = 10.0
# Reasons for which a job pauses: the disk has no room for its checkpoints or its decoded images.
WAITS_FOR_ROOM = {"CHECKPOINT_FAILED", "DISK_FULL"}
# Deaths whose cause is known, also when it is the last of a loop.
TELLING = {"WORKER_START", "STALLED", "HOST_OUT_OF_MEMORY", "INTERNAL"}
CRASH_HINT = "ask the operator for the error in the server's log; a smaller batch or image size needs less memory"
LOST = Failure(reason="TRAINER_LOST", message="the server was restarted, or lost sight of the trainer")
NO_REASON = Failure(reason="", message="")
LOST_STATES: Set[JobState] = {"STARTING", "RUNNING"}
WAITING_STATES: Set[JobState] = {"QUEUED", "RECOVERING"}
# Where a job goes that was asked to stop, once no trainer of it is left.
STOPPED: Mapping[JobState, JobState] = {"PAUSING": "PAUSED", "CANCELLING": "CANCELLED"}


@dataclass(slots=True, eq=False)
class Run:
    """A job that occupies a device, between attempts too."""

    job_id: str
    poison: PoisonHunt
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    attempt: TrainerAttempt | None = None
    task: asyncio.Task[None] | None = None

    def end(self, *, hurry: bool = False) -> None:
        """Stop the trainer, or the wait for its restart."""
        self.stop.set()
        if self.attempt:
            self.attempt.stop(hurry=hurry)


class JobSupervisor:
    """Keeps the trainers that the jobs want. `start`, `wake` whenever a job was created or cancelled, `drain`."""

    def __init__(
        self,
        store: Store,
        devices: Mapping[str, int],
        budget: CoreBudget,
        *,
        command: Sequence[str] = WORKER_COMMAND,
        patience: Patience | None = None,
    ) -> None:
        """`devices`: the name of each, and the bytes of decoded images that a job may keep on it."""
        self._store = store
        self._devices = dict(devices)
        self._budget = budget
        self._command = command
        self._patience = patience or Patience()
        self._runs: dict[str, Run] = {}  # by device
        self._news = asyncio.Event()
        self._draining = False
        self._waits_for_images = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up what is unfinished, and go on."""
        assert self._task is None
        self._task = asyncio.create_task(self._serve())

    def wake(self) -> None:
        """Something is wanted: look now."""
        self._news.set()

    async def drain(self) -> None:
        """Stop every trainer with a checkpoint. Jobs stay unfinished, and go on at the next start."""
        self._draining = True
        self.wake()
        if self._task:
            await self._task
        for run in self._runs.values():
            run.end(hurry=True)
        await asyncio.gather(*(run.task for run in self._runs.values() if run.task))

    async def _serve(self) -> None:
        while not self._draining:
            self._news.clear()
            try:
                await self._reconcile()
            except Exception:
                log.exception("jobs could not be reconciled")
            with suppress(TimeoutError):
                async with asyncio.timeout(dataset_growth.POLL_S if self._waits_for_images else RECONCILE_S):
                    await self._news.wait()

    async def _reconcile(self) -> None:
        """One look at all jobs."""
        self._waits_for_images = False
        ours = {run.job_id: run for run in self._runs.values()}
        waiting = []
        for job in await self._store.jobs.unfinished():
            run = ours.get(job.train_job_id)
            if job.state in STOPPED and run:
                run.end()
            elif job.state in STOPPED:
                job = await self._move(job, {job.state}, STOPPED[job.state])
            elif job.state in LOST_STATES and not run:
                job = await self._move(job, LOST_STATES, "RECOVERING", LOST)
            if job.state == "PAUSED" and job.desired == "run":  # resumed before it had stopped
                job = await self._move(job, {"PAUSED"}, "QUEUED")
            if job.state in WAITING_STATES and not run:
                if await dataset_growth.is_ready(self._store, job):
                    waiting.append(job)
                else:
                    self._waits_for_images = True
        waiting.sort(key=lambda job: job.state == "QUEUED")  # stable: the oldest first among each
        free = [device for device in self._devices if device not in self._runs]
        for device, job in zip(free, waiting, strict=False):
            self._take(device, job)

    def _take(self, device: str, job: Job) -> None:
        if self._draining:
            return
        run = self._runs[device] = Run(job.train_job_id, PoisonHunt(self._store))
        run.task = asyncio.create_task(self._occupy(device, run, job))

    async def _occupy(self, device: str, run: Run, job: Job) -> None:
        """Keep the device for the job until it is finished, or the server drains."""
        self._budget.trainer_started()
        try:
            while job.state in WAITING_STATES and not run.stop.is_set():
                job = await self._attempt(device, run, job)
                if job.state == "RECOVERING":
                    await self._wait_before_restart(run, job.restarts)
        except Exception:
            log.exception("a job could not be run", extra={"train_job": job.train_job_id})
            # The store refuses, perhaps: leave the job as it is, and let the reconciler find it later.
            await self._wait_before_restart(run, MAX_RESTARTS)
        finally:
            self._budget.trainer_ended()
            del self._runs[device]
            self.wake()

    async def _attempt(self, device: str, run: Run, job: Job) -> Job:
        """One trainer's life, and what follows from its end."""
        restarts = 0 if job.state == "QUEUED" else None
        job = await self._move(job, WAITING_STATES, "STARTING", attempt=job.attempt + 1, restarts=restarts)
        if job.state != "STARTING":
            return job
        try:
            ending = await self._train(device, run, job)
        except Exception as error:
            error_id = uuid.uuid4().hex[:12]
            log.exception("a trainer could not be run", extra={"train_job": job.train_job_id, "error_id": error_id})
            what = "had too many open files" if open_files.are_lacking(error) else "failed to run the trainer"
            message = f"the server {what} (error {error_id} in the server's log)"
            ending = Ending(outcome="died", reason="INTERNAL", message=message)
        found = ending.outcome == "died" and await run.poison.look_at_death(job, ending)
        return await self._conclude(job, ending, found_culprit=found)

    async def _train(self, device: str, run: Run, job: Job) -> Ending:
        found = await self._checkpoint_to_resume(job)
        if isinstance(found, Ending):
            return found
        if job.attempt > 1:
            await self._store.events.rollback(job.train_job_id, found.step if found else 0, job.attempt)
        job = await dataset_growth.begin(self._store, job, found)
        if job.num_images > snapshot_limit.MAX_IMAGES:
            message = snapshot_limit.words(job.num_images)
            reason, hint = snapshot_limit.DATASET_TOO_LARGE, snapshot_limit.HINT
            return Ending(outcome="failed", reason=reason, message=message, hint=hint)
        reports = TrainerReports(self._store, job, StepWatch(self._patience.step_s))
        start = await self._start_message(job, device, found, run.poison)
        run.attempt = TrainerAttempt(start, reports, command=self._command, patience=self._patience)
        if run.stop.is_set():
            run.attempt.stop()
        growing = (
            asyncio.create_task(dataset_growth.tell(self._store, job, run.attempt.send)) if job.min_images else None
        )
        try:
            return await run.attempt.run()
        finally:
            run.attempt = None
            if growing:
                growing.cancel()

    async def _checkpoint_to_resume(self, job: Job) -> Checkpoint | Ending | None:
        """The newest good checkpoint, None to begin; corrupt ones before it are set aside, with an alert each.

        Where all are corrupt the job fails: never does it begin again in silence.
        """
        jobs = self._store.jobs
        listed = await jobs.checkpoints(job.train_job_id)
        directory = jobs.checkpoint_directory(job.uid)
        await asyncio.to_thread(retention.remove_unlisted, directory, listed)
        good, corrupt = await retention.newest_good(listed)
        if corrupt and not good:
            message = f"none of the {len(corrupt)} checkpoints is what its manifest says"
            hint = "check the disk; create the job again"
            return Ending(outcome="failed", reason="CHECKPOINT_CORRUPT", message=message, hint=hint)
        for checkpoint in corrupt:
            message = f"the checkpoint of step {checkpoint.step} is not what its manifest says: it is set aside"
            alert = Alert(reason="CHECKPOINT_CORRUPT", message=message)
            event = NewEvent(payload=alert, step=checkpoint.step, attempt=job.attempt)
            await self._store.events.append(job.train_job_id, [event])
            await jobs.set_checkpoint_aside(job.train_job_id, checkpoint.step)
        return good

    async def _start_message(
        self, job: Job, device: str, checkpoint: Checkpoint | None, poison: PoisonHunt
    ) -> StartTraining:
        snapshot = await self._store.datasets.snapshot(job.dataset_id, job.num_images)
        quarantined = await poison.quarantined(job)
        return StartTraining(
            train_job=job.train_job_id,
            attempt=job.attempt,
            settings=job.settings,
            dataset_dir=str(self._store.datasets.directory(job.dataset_uid)),
            checkpoint_dir=str(self._store.jobs.checkpoint_directory(job.uid)),
            resume_from=checkpoint.directory if checkpoint else "",
            device=device,
            num_threads=self._budget.trainer_threads,
            cache_bytes=self._devices[device],
            suspects=poison.suspects,
            quarantined=quarantined[CRASHED],
            too_slow=quarantined[TOO_SLOW],
            follows=job.min_images > 0,
            weights_dir=str(self._store.weights_dir),
            adoptions=tuple(await dataset_growth.adopted_since(self._store, job, checkpoint)),
            blobs=(snapshot.blob,),
        )

    async def _conclude(self, job: Job, ending: Ending, *, found_culprit: bool) -> Job:
        """Write how an attempt ended.

        A job that was to be cancelled is so, however it ended; one that was to pause may have ended by itself first. A
        death that gave away the image it was due to is progress: restarts are counted anew.
        """
        job = await self._store.jobs.get(job.train_job_id)
        if job.state == "CANCELLING":
            return await self._move(job, {"CANCELLING"}, "CANCELLED")
        if ending.outcome == "succeeded":
            if job.state == "STARTING":
                job = await self._move(job, {"STARTING"}, "RUNNING")
            return await self._move(job, {"RUNNING", "PAUSING"}, "SUCCEEDED")
        if ending.reason in WAITS_FOR_ROOM:
            return job if self._draining else await self._pause(job, ending)
        if ending.outcome == "failed":
            why = Failure(reason=ending.reason, message=ending.message, hint=ending.hint)
            return await self._move(job, {*LOST_STATES, "PAUSING"}, "FAILED", why)
        if job.state == "PAUSING":
            return await self._move(job, {"PAUSING"}, "PAUSED", Failure(reason="", message=ending.message))
        if self._draining:
            return job
        if job.restarts >= MAX_RESTARTS and not found_culprit:
            reason = ending.reason if ending.reason in TELLING else "CRASH_LOOP"
            message = f"{ending.message}; {MAX_RESTARTS} restarts brought no new checkpoint"
            failure = Failure(reason=reason, message=message, hint=ending.hint or CRASH_HINT)
            return await self._move(job, LOST_STATES, "FAILED", failure)
        why = Failure(reason=ending.reason or "TRAINER_STOPPED", message=ending.message)
        return await self._move(job, LOST_STATES, "RECOVERING", why, restarts=0 if found_culprit else job.restarts + 1)

    async def _pause(self, job: Job, ending: Ending) -> Job:
        """Pause a job until the disk has room. Nothing is wrong with the job itself."""
        with suppress(FailedPrecondition):  # it is being cancelled
            job = await self._store.jobs.request(job.train_job_id, replace(PAUSE, reason=ending.reason))
        why = Failure(reason=ending.reason, message=f"{ending.message}. {ending.hint}")
        return await self._move(job, {"PAUSING"}, "PAUSED", why)

    async def _move(
        self,
        job: Job,
        expected: Set[JobState],
        to: JobState,
        why: Failure = NO_REASON,
        *,
        attempt: int | None = None,
        restarts: int | None = None,
    ) -> Job:
        """The job after the transition, or as it is where somebody was faster: with a cancellation, that is."""
        told = {"reason": why.reason, "message": why.message}
        try:
            moved = await self._store.jobs.transition(
                job.train_job_id, expected, to, hint=why.hint, attempt=attempt, restarts=restarts, **told
            )
        except Aborted:
            self.wake()
            return await self._store.jobs.get(job.train_job_id)
        log.info("train job moved", extra={"train_job": job.train_job_id, "from": job.state, "to": to, "why": told})
        return moved

    async def _wait_before_restart(self, run: Run, restarts: int) -> None:
        delay_s = restart_delay_s(restarts, self._patience.restart_s, self._patience.restart_at_most_s)
        try:
            async with asyncio.timeout(delay_s):
                await run.stop.wait()
        except TimeoutError:
            return
