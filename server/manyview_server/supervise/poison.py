"""An image that kills its decoder: found out by trying the suspects alone, then left out of training for good."""

from __future__ import annotations

import asyncio
import logging

from manyview_server import decode_notes
from manyview_server.store.records import Job, NewEvent
from manyview_server.store.store import Store

log = logging.getLogger(__name__)

REASON = "DECODER_CRASHED"


class PoisonHunt:
    """The images of one job that are under suspicion, over its attempts. `suspects` are to be tried alone next time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.suspects: tuple[int, ...] = ()

    async def quarantined(self, job: Job) -> tuple[int, ...]:
        """The images of the job's data set that no trainer may decode any more."""
        return await self._store.datasets.unreadable_ids(job.dataset_uid, REASON)

    async def look_at_death(self, job: Job, *, innocent: bool) -> bool:
        """Read what the trainer was decoding when it died; True where that has found a culprit.

        `innocent`: it died of something else, such as another process's need of memory, whatever it was decoding.
        """
        path = decode_notes.path_for(self._store.jobs.checkpoint_directory(job.uid))
        alone, image_ids = await asyncio.to_thread(decode_notes.read, path)
        path.unlink(missing_ok=True)
        if innocent:
            self.suspects = ()
            return False
        if not (alone and len(image_ids) == 1):
            self.suspects = image_ids
            return False
        (culprit,) = image_ids
        self.suspects = tuple(image_id for image_id in self.suspects if image_id != culprit)
        message = f"image {culprit:016x} kills the decoder: it is left out from now on"
        await self._store.datasets.mark_unreadable(job.dataset_uid, culprit, REASON, "it kills the decoder")
        alert = NewEvent(kind="alert", payload={"reason": "IMAGE_QUARANTINED", "message": message}, attempt=job.attempt)
        await self._store.events.append(job.train_job_id, [alert])
        log.error("an image kills the decoder", extra={"train_job": job.train_job_id, "image": f"{culprit:016x}"})
        return True
