"""Find the image that killed its decoder or took too long to decode, and leave it out of training for good.

A note names the image that takes too long to decode. After a crash, the images that were being decoded are suspects,
and the next attempt decodes each of them alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from manyview_server.link.decode_notes import ALONE, CRASHED, QUARANTINE, TOO_SLOW
from manyview_server.store.event_payloads import Alert
from manyview_server.store.records import Job, NewEvent
from manyview_server.store.store import Store
from manyview_server.supervise.trainers.attempt import Ending

log = logging.getLogger(__name__)


class PoisonHunt:
    """The images of one job that are under suspicion, over its attempts. `suspects` are to be tried alone next time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.suspects: tuple[int, ...] = ()

    async def quarantined(self, job: Job) -> Mapping[str, tuple[int, ...]]:
        """Return the images of the job's data set that no trainer may decode any more, by reason."""
        return {reason: await self._store.datasets.unreadable_ids(job.dataset_uid, reason) for reason in QUARANTINE}

    async def look_at_death(self, job: Job, ending: Ending) -> bool:
        """Look at what the trainer was decoding when it died. Returns whether that has identified an image."""
        if ending.reason == TOO_SLOW:
            return any([await self._quarantine(job, note.item, TOO_SLOW) for note in ending.in_hand])
        if ending.reason == "HOST_OUT_OF_MEMORY":  # whatever it was decoding
            self.suspects = ()
            return False
        if len(ending.in_hand) != 1 or ending.in_hand[0].kind != ALONE:
            self.suspects = tuple(note.item for note in ending.in_hand if note.is_decode)
            return False
        culprit = ending.in_hand[0].item
        self.suspects = tuple(image_id for image_id in self.suspects if image_id != culprit)
        return await self._quarantine(job, culprit, CRASHED)

    async def _quarantine(self, job: Job, image_id: int, reason: str) -> bool:
        """List the image as unreadable, and report it in the job's log and the server's. Returns False if it was listed
        before."""
        if not await self._store.datasets.mark_unreadable(job.dataset_uid, image_id, reason, QUARANTINE[reason]):
            return False
        message = f"image {image_id:016x} is left out from now on: {QUARANTINE[reason]}"
        alert = Alert(reason="IMAGE_QUARANTINED", message=message)
        await self._store.events.append(job.train_job_id, [NewEvent(payload=alert, attempt=job.attempt)])
        known = {"train_job": job.train_job_id, "image": f"{image_id:016x}", "reason": reason}
        log.error("an image is quarantined", extra=known)
        return True
