"""The task of an attempt: the checkpoint from which it resumes, and the message that starts its trainer."""

from __future__ import annotations

import asyncio

from manyview_server.counted_noun import number_of
from manyview_server.link.decode_notes import CRASHED, TOO_SLOW
from manyview_server.messages.training import NO_LIMIT, StartTraining
from manyview_server.store.event_payloads import Alert
from manyview_server.store.records import Checkpoint, Job, NewEvent
from manyview_server.store.store import Store
from manyview_server.supervise.timers.step_times import StepTimes
from manyview_server.supervise.trainers import dataset_following, retention
from manyview_server.supervise.trainers.attempt import Ending
from manyview_server.supervise.trainers.crashing_images import CrashingImages


async def checkpoint_to_resume(store: Store, job: Job) -> Checkpoint | Ending | None:
    """Return the newest good checkpoint of a job, or None for a job without checkpoints.

    Corrupt ones that are newer are set aside, with an alert for each. If all are corrupt, return the ending of a job
    that failed: a job never starts from the beginning again in silence.
    """
    listed = await store.checkpoints.list(job.train_job_id)
    directory = store.checkpoints.directory(job.uid)
    await asyncio.to_thread(retention.remove_unlisted, directory, listed)
    good, corrupt = await retention.newest_good(listed)
    if corrupt and not good:
        message = f"the files of {number_of(len(corrupt), 'checkpoint')} differ from their manifests"
        hint = "check the disk; create the job again"
        return Ending(outcome="failed", reason="CHECKPOINT_CORRUPT", message=message, hint=hint)
    for checkpoint in corrupt:
        message = f"the files of the checkpoint of step {checkpoint.step} differ from its manifest: it is set aside"
        alert = Alert(reason="CHECKPOINT_CORRUPT", message=message)
        event = NewEvent(payload=alert, step=checkpoint.step, attempt=job.attempt)
        await store.events.append(job.train_job_id, [event])
        await store.checkpoints.set_aside(job.train_job_id, checkpoint.step)
    return good


async def start_message(
    store: Store,
    job: Job,
    checkpoint: Checkpoint | None,
    crashing: CrashingImages,
    *,
    device: str,
    num_threads: int,
    cache_bytes: int,
    image_cache_bytes: int | None = None,
    step_times: StepTimes | None = None,
) -> StartTraining:
    """Return the message that starts an attempt at a job from a checkpoint."""
    snapshot = await store.datasets.snapshot(job.dataset_id, job.num_images)
    quarantined = await crashing.quarantined(job)
    return StartTraining(
        train_job=job.train_job_id,
        attempt=job.attempt,
        settings=job.settings,
        dataset_dir=str(store.datasets.directory(job.dataset_uid)),
        checkpoint_dir=str(store.checkpoints.directory(job.uid)),
        resume_from=checkpoint.directory if checkpoint else "",
        device=device,
        num_threads=num_threads,
        cache_bytes=cache_bytes,
        image_cache_bytes=NO_LIMIT if image_cache_bytes is None else image_cache_bytes,
        suspects=crashing.suspects,
        quarantined=quarantined[CRASHED],
        too_slow=quarantined[TOO_SLOW],
        follows=job.min_images > 0,
        weights_dir=str(store.weights_dir),
        numerics=step_times.numerics(job.settings, device, num_threads) if step_times else {},
        planned_image_s=step_times.image_s(job.settings, device, num_threads) if step_times else 0.0,
        adoptions=tuple(await dataset_following.adopted_since(store, job, checkpoint)),
        blobs=snapshot.rows.blobs,
    )
