"""Images that killed their decoder or took too long to decode: each is found, and left out of training for good.

A note names the image that takes too long to decode. After a crash, the images that were being decoded are suspects,
and the next attempt decodes each of them alone. If it dies during that, the image is the culprit.
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


class CrashingImages:
    """The suspects among the images of one job, over its attempts."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.suspects: tuple[int, ...] = ()
        """The ids of the images that the next attempt must decode alone."""

    async def quarantined(self, job: Job) -> Mapping[str, tuple[int, ...]]:
        """Return the images of the job's data set that no trainer may decode any more, by the reason."""
        return {reason: await self._store.datasets.unreadable_ids(job.dataset_uid, reason) for reason in QUARANTINE}

    async def record_death(self, job: Job, ending: Ending) -> bool:
        """Note what the trainer was decoding when it died. Return whether a culprit was found."""
        if ending.reason == TOO_SLOW:
            return any([await self._quarantine(job, note.item, TOO_SLOW) for note in ending.tasks])
        if ending.reason == "HOST_OUT_OF_MEMORY":  # no image is to blame
            self.suspects = ()
            return False
        if len(ending.tasks) != 1 or ending.tasks[0].kind != ALONE:
            self.suspects = tuple(note.item for note in ending.tasks if note.is_decode)
            return False
        culprit = ending.tasks[0].item
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
