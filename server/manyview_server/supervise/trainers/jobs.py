"""Start and stop trainers, so that the jobs run that users want to run.

A reconciler compares the jobs with the trainers, at the start of the server too. A job that is STARTING or RUNNING
without a trainer has lost it, and recovers. A job that is PAUSING or CANCELLING without a trainer is paused or
cancelled. A free device takes the oldest job that waits, recovering ones first. A device runs one trainer at a time.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace

from manyview_server.errors import Aborted, FailedPrecondition
from manyview_server.store.job_states import JobState
from manyview_server.store.jobs.job_verbs import PAUSE
from manyview_server.store.records import Activity, Failure, Job
from manyview_server.store.store import Store
from manyview_server.supervise.cores import CoreBudget
from manyview_server.supervise.process import WORKER_COMMAND, Forks
from manyview_server.supervise.restart_delay import restart_delay_s
from manyview_server.supervise.timers.step_times import StepTimes
from manyview_server.supervise.trainers import dataset_following
from manyview_server.supervise.trainers.attempt import Ending, Patience, TrainerAttempt
from manyview_server.supervise.trainers.crashing_images import CrashingImages
from manyview_server.supervise.trainers.reports import ACTIVITIES, StepWatch, TrainerReports
from manyview_server.supervise.trainers.start_message import checkpoint_to_resume, start_message
from manyview_server.system import open_files

log = logging.getLogger(__name__)

MAX_RESTARTS = 3
"""The most restarts without a new checkpoint."""
RECONCILE_S = 10.0
"""The reconciler looks at the jobs so often when nothing wakes it, for example after an error of the store."""
PAUSING_REASONS = {"CHECKPOINT_FAILED"}
"""The reasons for which a job pauses: the disk has no room for its checkpoints."""
KNOWN_CAUSES = {"WORKER_START", "STALLED", "HOST_OUT_OF_MEMORY", "INTERNAL"}
"""The reasons of deaths that say more than CRASH_LOOP does."""
CRASH_HINT = "ask the operator for the error in the server's log; a smaller batch or image size needs less memory"
LOST = Failure(reason="TRAINER_LOST", message="the server was restarted, or lost sight of the trainer")
NO_REASON = Failure(reason="", message="")
LOST_STATES: Set[JobState] = {"STARTING", "RUNNING"}
WAITING_STATES: Set[JobState] = {"QUEUED", "RECOVERING"}
STOPPED: Mapping[JobState, JobState] = {"PAUSING": "PAUSED", "CANCELLING": "CANCELLED"}
"""The state that follows once a job that was asked to stop has no trainer any more."""


@dataclass(slots=True, eq=False)
class Run:
    """A job that occupies a device, also between attempts."""

    job_id: str
    crashing: CrashingImages
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    attempt: TrainerAttempt | None = None
    task: asyncio.Task[None] | None = None

    def end(self, *, hurry: bool = False) -> None:
        """Stop the trainer, or the wait for its restart."""
        self.stop.set()
        if self.attempt:
            self.attempt.stop(hurry=hurry)


class JobSupervisor:
    """Runs the trainers of all jobs. Call `start`, then `wake` whenever a job was created or changed, then `drain`."""

    def __init__(
        self,
        store: Store,
        devices: Mapping[str, int],
        budget: CoreBudget,
        *,
        image_cache_bytes: int | None = None,
        command: Sequence[str] = WORKER_COMMAND,
        forks: Forks | None = None,
        patience: Patience | None = None,
        step_times: StepTimes | None = None,
    ) -> None:
        """`devices` maps the name of each to the bytes of decoded images that a job may keep on it, and
        `image_cache_bytes` limits them together with those that it keeps in memory. `step_times` knows in which number
        format a job is the fastest."""
        self._store = store
        self._devices = dict(devices)
        self._image_cache_bytes = image_cache_bytes
        self._budget = budget
        self._command = command
        self._forks = forks
        self._patience = patience or Patience()
        self._step_times = step_times
        self._runs: dict[str, Run] = {}  # by device
        self._woken = asyncio.Event()
        self._draining = False
        self._waits_for_images = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to reconcile, with the jobs that are unfinished."""
        assert self._task is None
        self._task = asyncio.create_task(self._serve())

    def wake(self) -> None:
        """Reconcile now."""
        self._woken.set()

    async def drain(self) -> None:
        """Stop every trainer with a checkpoint. The jobs stay unfinished, and resume when the server starts again."""
        self._draining = True
        self.wake()
        if self._task:
            await self._task
        for run in self._runs.values():
            run.end(hurry=True)
        await asyncio.gather(*(run.task for run in self._runs.values() if run.task))

    async def _serve(self) -> None:
        while not self._draining:
            self._woken.clear()
            try:
                await self._reconcile()
            except Exception:
                log.exception("jobs could not be reconciled")
            with suppress(TimeoutError):
                async with asyncio.timeout(dataset_following.POLL_S if self._waits_for_images else RECONCILE_S):
                    await self._woken.wait()

    async def _reconcile(self) -> None:
        """Look at all jobs once, and do what each needs."""
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
                if await dataset_following.is_ready(self._store, job):
                    waiting.append(job)
                else:
                    self._waits_for_images = True
        waiting.sort(key=lambda job: job.state == "QUEUED")  # recovering ones first; the oldest stay first among each
        free = [device for device in self._devices if device not in self._runs]
        for device, job in zip(free, waiting, strict=False):
            self._take(device, job)

    def _take(self, device: str, job: Job) -> None:
        if self._draining:
            return
        run = self._runs[device] = Run(job.train_job_id, CrashingImages(self._store))
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
            # Perhaps the store refuses to write. Leave the job as it is: the reconciler finds it later.
            await self._wait_before_restart(run, MAX_RESTARTS)
        finally:
            self._budget.trainer_ended()
            del self._runs[device]
            self.wake()

    async def _attempt(self, device: str, run: Run, job: Job) -> Job:
        """Run one trainer to its end, and return the job in the state that follows."""
        restarts = 0 if job.state == "QUEUED" else None
        job = await self._move(job, WAITING_STATES, "STARTING", attempt=job.attempt + 1, restarts=restarts)
        if job.state != "STARTING":
            return job
        starting = replace(job.progress, activity=Activity(kind=ACTIVITIES["starting"]), eta_s=0.0)
        self._store.jobs.report_progress(job.train_job_id, starting)
        try:
            ending = await self._train(device, run, job)
        except Exception as error:
            error_id = uuid.uuid4().hex[:12]
            log.exception("a trainer could not be run", extra={"train_job": job.train_job_id, "error_id": error_id})
            what = "had too many open files" if open_files.are_lacking(error) else "failed to run the trainer"
            message = f"the server {what} (error {error_id} in the server's log)"
            ending = Ending(outcome="died", reason="INTERNAL", message=message)
        found = ending.outcome == "died" and await run.crashing.record_death(job, ending)
        return await self._conclude(job, ending, found_culprit=found)

    async def _train(self, device: str, run: Run, job: Job) -> Ending:
        checkpoint = await checkpoint_to_resume(self._store, job)
        if isinstance(checkpoint, Ending):
            return checkpoint
        if job.attempt > 1:
            await self._store.events.rollback(job.train_job_id, checkpoint.step if checkpoint else 0, job.attempt)
        job = await dataset_following.adopt_first_images(self._store, job, checkpoint)
        reports = TrainerReports(self._store, job, StepWatch(self._patience.step_s))
        start = await start_message(
            self._store,
            job,
            checkpoint,
            run.crashing,
            device=device,
            num_threads=self._budget.trainer_threads,
            cache_bytes=self._devices[device],
            image_cache_bytes=self._image_cache_bytes,
            step_times=self._step_times,
        )
        run.attempt = TrainerAttempt(start, reports, command=self._command, forks=self._forks, patience=self._patience)
        if run.stop.is_set():
            run.attempt.stop()
        following: asyncio.Task[None] | None = None
        if job.min_images:
            sending = dataset_following.send_added_images(self._store, job, run.attempt.send)
            following = asyncio.create_task(sending)
        try:
            return await run.attempt.run()
        finally:
            run.attempt = None
            if following:
                following.cancel()

    async def _conclude(self, job: Job, ending: Ending, *, found_culprit: bool) -> Job:
        """Move the job to the state that follows from the ending of an attempt.

        A job that is being cancelled is cancelled, however its attempt ended. A job that is being paused may have ended
        by itself before. A death that led to the image that caused it is progress, so the count of restarts starts at 0
        again.
        """
        job = await self._store.jobs.get(job.train_job_id)
        if job.state == "CANCELLING":
            return await self._move(job, {"CANCELLING"}, "CANCELLED")
        if ending.outcome == "succeeded":
            if job.state == "STARTING":
                job = await self._move(job, {"STARTING"}, "RUNNING")
            return await self._move(job, {"RUNNING", "PAUSING"}, "SUCCEEDED")
        if ending.reason in PAUSING_REASONS:
            return job if self._draining else await self._pause(job, ending)
        if ending.outcome == "failed":
            why = Failure(reason=ending.reason, message=ending.message, hint=ending.hint)
            return await self._move(job, {*LOST_STATES, "PAUSING"}, "FAILED", why)
        if job.state == "PAUSING":
            return await self._move(job, {"PAUSING"}, "PAUSED", Failure(reason="", message=ending.message))
        if self._draining:
            return job
        if job.restarts >= MAX_RESTARTS and not found_culprit:
            reason = ending.reason if ending.reason in KNOWN_CAUSES else "CRASH_LOOP"
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
        """Return the job after the transition. If its state was changed before, as by a cancellation, return it as it
        is."""
        cause = {"reason": why.reason, "message": why.message}
        try:
            moved = await self._store.jobs.transition(
                job.train_job_id, expected, to, hint=why.hint, attempt=attempt, restarts=restarts, **cause
            )
        except Aborted:
            self.wake()
            return await self._store.jobs.get(job.train_job_id)
        log.info("train job moved", extra={"train_job": job.train_job_id, "from": job.state, "to": to, "why": cause})
        return moved

    async def _wait_before_restart(self, run: Run, restarts: int) -> None:
        delay_s = restart_delay_s(restarts, self._patience.restart_s, self._patience.restart_at_most_s)
        try:
            async with asyncio.timeout(delay_s):
                await run.stop.wait()
        except TimeoutError:
            return
