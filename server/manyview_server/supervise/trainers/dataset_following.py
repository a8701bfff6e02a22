"""The data set of a job that follows it: when it holds enough images to start, and which are added while it trains."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from manyview_server.messages.message import Message
from manyview_server.messages.training import Adoption, ImagesAdded
from manyview_server.store.event_payloads import Alert
from manyview_server.store.records import Checkpoint, Job, NewEvent
from manyview_server.store.store import Store
from manyview_server.supervise.trainers import snapshot_limit

log = logging.getLogger(__name__)

POLL_S = 1.0
"""The pause between two looks at a data set."""


async def is_ready(store: Store, job: Job) -> bool:
    """May the job start? A job that follows its data set waits for its first images."""
    if job.num_images or not job.min_images:  # it has started before, or does not follow
        return True
    return (await store.datasets.get(job.dataset_id)).num_images >= job.min_images


async def adopt_first_images(store: Store, job: Job, checkpoint: Checkpoint | None) -> Job:
    """Let a job that follows adopt the images that its data set holds now, unless it has adopted some before."""
    if job.num_images or not job.min_images:
        return job
    num_images = min(snapshot_limit.MAX_IMAGES, (await store.datasets.get(job.dataset_id)).num_images)
    step, epoch = (checkpoint.step, checkpoint.epoch) if checkpoint else (0, 0)
    adoption = Adoption(step=step, epoch=epoch, num_images=num_images)
    return await store.jobs.adopt(job.train_job_id, adoption, num_added=num_images, attempt=job.attempt)


async def adopted_since(store: Store, job: Job, checkpoint: Checkpoint | None) -> Sequence[Adoption]:
    """Return what was adopted after the checkpoint. An attempt that resumes from there adopts it again."""
    if not job.min_images:
        return ()
    return await store.jobs.adoptions(job.train_job_id, checkpoint.step if checkpoint else 0)


async def send_added_images(store: Store, job: Job, send: Callable[[Message], Awaitable[bool]]) -> None:
    """Send the images that are added to the data set, until the job has as many as it can have. Runs until cancelled
    otherwise.

    `send` returns False while the trainer cannot take a message. The images are sent again later then.
    """
    sent = job.num_images
    while True:
        await asyncio.sleep(POLL_S)
        try:
            num_images = (await store.datasets.get(job.dataset_id)).num_images
            if num_images > snapshot_limit.MAX_IMAGES == sent:
                await _report_that_job_is_full(store, job, num_images)
                return
            if num_images == sent:
                continue
            version = min(num_images, snapshot_limit.MAX_IMAGES)
            snapshot = await store.datasets.snapshot(job.dataset_id, version, first=sent)
            if await send(ImagesAdded(blobs=(snapshot.blob,))):
                sent = snapshot.version
        except Exception:  # such as a full disk: the next look may succeed
            log.exception(
                "images that were added to a data set could not be read", extra={"train_job": job.train_job_id}
            )


async def _report_that_job_is_full(store: Store, job: Job, num_images: int) -> None:
    message = (
        f"{snapshot_limit.too_many(num_images)}: the job keeps training on the first {snapshot_limit.MAX_IMAGES:,}"
    )
    alert = Alert(reason=snapshot_limit.DATASET_TOO_LARGE, message=message)
    await store.events.append(job.train_job_id, [NewEvent(payload=alert, attempt=job.attempt)])
