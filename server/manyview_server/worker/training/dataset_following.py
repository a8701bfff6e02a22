"""Images that arrive while a job trains: they are adopted at the start of an epoch, and decoded when they are needed.

An epoch is always one pass over one snapshot. Each adoption and its step are reported. An attempt that continues from a
checkpoint first repeats the same adoptions at the same steps, and only then takes new images, so it computes the same.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterable

from manyview_server.messages.training import Adoption, ImagesAdded
from manyview_server.store.images.snapshots import SnapshotRows
from manyview_server.worker.job_images.decoded_images import DecodedImages


class DatasetFollowing:
    """The data set of a job as it grows. Call `next_adoption` between steps."""

    def __init__(
        self, decoded: DecodedImages, to_repeat: Iterable[Adoption], added: queue.SimpleQueue[ImagesAdded]
    ) -> None:
        """
        Args:
            decoded: the images known so far, including those of all adoptions `to_repeat`.
            to_repeat: what an earlier attempt adopted after the checkpoint, in order.
            added: the messages of the front about new images.
        """
        self._decoded = decoded
        self._to_repeat = deque(to_repeat)
        self._added = added

    def next_adoption(self, step: int, epoch: int) -> Adoption | None:
        """Return what to adopt before the epoch that starts after `step` steps, or None if there are no new images."""
        if self._to_repeat:
            if step < self._to_repeat[0].step:
                return None
            # The step is that of the earlier adoption, unless a release that counted only readable images made it.
            return Adoption(step=step, epoch=epoch, num_images=self._to_repeat.popleft().num_images)
        index = self._decoded.index
        while not self._added.empty():
            message = self._added.get()
            index = index.extended(SnapshotRows.received(message.dataset_dir, message.blobs).all())
        if index is self._decoded.index:
            return None
        self._decoded.grow(index)
        return Adoption(step=step, epoch=epoch, num_images=len(index))
