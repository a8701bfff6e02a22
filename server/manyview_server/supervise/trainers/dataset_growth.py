"""The data set of a job that follows it: when it holds enough to begin, and what is added while the job trains."""

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
"""Between two looks at a data set."""


async def is_ready(store: Store, job: Job) -> bool:
    """Whether the job may start: a job that follows its data set waits for its first images."""
    if job.num_images or not job.min_images:  # a job that does not follow, or that has begun
        return True
    return (await store.datasets.get(job.dataset_id)).num_images >= job.min_images


async def begin(store: Store, job: Job, checkpoint: Checkpoint | None) -> Job:
    """Before the first attempt: the job adopts the images that the data set holds now."""
    if job.num_images or not job.min_images:
        return job
    held = min(snapshot_limit.MAX_IMAGES, (await store.datasets.get(job.dataset_id)).num_images)
    step, epoch = (checkpoint.step, checkpoint.epoch) if checkpoint else (0, 0)
    adoption = Adoption(step=step, epoch=epoch, num_images=held)
    return await store.jobs.adopt(job.train_job_id, adoption, num_added=held, attempt=job.attempt)


async def adopted_since(store: Store, job: Job, checkpoint: Checkpoint | None) -> Sequence[Adoption]:
    """What an attempt has to adopt again."""
    if not job.min_images:
        return ()
    return await store.jobs.adoptions(job.train_job_id, checkpoint.step if checkpoint else 0)


async def tell(store: Store, job: Job, send: Callable[[Message], Awaitable[bool]]) -> None:
    """Send what is added to the data set, until cancelled, or until the job has as many images as it can have."""
    sent = job.num_images
    while True:
        await asyncio.sleep(POLL_S)
        try:
            held = (await store.datasets.get(job.dataset_id)).num_images
            if held > snapshot_limit.MAX_IMAGES == sent:
                await _say_that_it_is_full(store, job, held)
                return
            if held == sent:
                continue
            version = min(held, snapshot_limit.MAX_IMAGES)
            snapshot = await store.datasets.snapshot(job.dataset_id, version, first=sent)
            if await send(ImagesAdded(blobs=(snapshot.blob,))):
                sent = snapshot.version
        except Exception:  # such as a full disk: the next look may find it mended
            log.exception("what was added to a data set could not be read", extra={"train_job": job.train_job_id})


async def _say_that_it_is_full(store: Store, job: Job, held: int) -> None:
    message = f"{snapshot_limit.words(held)}: the job keeps training on the first {snapshot_limit.MAX_IMAGES:,}"
    alert = Alert(reason=snapshot_limit.DATASET_TOO_LARGE, message=message)
    await store.events.append(job.train_job_id, [NewEvent(payload=alert, attempt=job.attempt)])
