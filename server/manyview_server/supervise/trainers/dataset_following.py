"""The data set of a job that follows it: when it holds enough images to start, and which are added while it trains."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from manyview_server.messages.message import Message
from manyview_server.messages.training import Adoption, ImagesAdded
from manyview_server.store.records import Checkpoint, Job
from manyview_server.store.store import Store

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
    num_images = (await store.datasets.get(job.dataset_id)).num_images
    step, epoch = (checkpoint.step, checkpoint.epoch) if checkpoint else (0, 0)
    adoption = Adoption(step=step, epoch=epoch, num_images=num_images)
    return await store.jobs.adopt(job.train_job_id, adoption, num_added=num_images, attempt=job.attempt)


async def adopted_since(store: Store, job: Job, checkpoint: Checkpoint | None) -> Sequence[Adoption]:
    """Return what was adopted after the checkpoint. An attempt that resumes from there adopts it again."""
    if not job.min_images:
        return ()
    return await store.jobs.adoptions(job.train_job_id, checkpoint.step if checkpoint else 0)


async def send_added_images(store: Store, job: Job, send: Callable[[Message], Awaitable[bool]]) -> None:
    """Send the images that are added to the data set. Runs until cancelled.

    `send` returns False while the trainer cannot take a message. The images are sent again later then.
    """
    sent = job.num_images
    while True:
        await asyncio.sleep(POLL_S)
        try:
            num_images = (await store.datasets.get(job.dataset_id)).num_images
            if num_images == sent:
                continue
            snapshot = await store.datasets.snapshot(job.dataset_id, num_images, first=sent)
            rows = snapshot.rows
            if await send(ImagesAdded(dataset_dir=str(rows.directory), blobs=rows.blobs)):
                sent = snapshot.version
        except Exception:  # such as a full disk: the next look may succeed
            log.exception(
                "images that were added to a data set could not be read", extra={"train_job": job.train_job_id}
            )
