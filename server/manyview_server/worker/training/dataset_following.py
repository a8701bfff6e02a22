"""Images that arrive while a job trains: decoded beside the steps, and adopted at the start of an epoch.

An epoch is always one pass over one snapshot. Each adoption and its step are reported. An attempt that continues from a
checkpoint first repeats the same adoptions at the same steps, and only then takes new images, so it computes the same.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from manyview_server.messages.training import Adoption, ImagesAdded
from manyview_server.store.images.snapshots import SnapshotRows
from manyview_server.worker.images.cache import ImageCache
from manyview_server.worker.images.cache_builder import CacheBuilder

HANGING_S = 600.0
"""Decoding one chunk of images may take this long."""
SECOND_LOOK_S = 60.0
"""The delay before a chunk that takes too long is checked again: the machine may have slept during it."""


class DatasetFollowing:
    """The data set of a job as it grows. Call `start` once, and then `next_snapshot` between steps."""

    def __init__(
        self,
        builder: CacheBuilder,
        cache: ImageCache,
        to_repeat: Iterable[Adoption],
        added: queue.SimpleQueue[ImagesAdded],
        *,
        report: Callable[[ImageCache], None],
        stopped: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            cache: the images decoded so far, including those of all adoptions `to_repeat`.
            to_repeat: what an earlier attempt adopted after the checkpoint, in order.
            added: the messages of the front about new images.
            report: called with the decoded images of each message, from the thread.
            stopped: once it returns True, nothing more is decoded.
            clock: the time in seconds, which must not jump.
        """
        self._builder = builder
        self._cache = cache
        self._to_repeat = deque(to_repeat)
        self._added = added
        self._report = report
        self._stopped = stopped
        self._clock = clock
        self._decoded: queue.SimpleQueue[ImageCache | BaseException] = queue.SimpleQueue()
        self._waiting_bytes = 0  # memory of the device that holds images not yet adopted
        self._busy_since: float | None = None
        self._late_since: float | None = None

    def start(self) -> None:
        """Start a thread that decodes the images that are added from now on."""
        threading.Thread(target=self._decode, name="dataset-following", daemon=True).start()

    def next_snapshot(self, step: int, epoch: int) -> tuple[ImageCache, Adoption] | None:
        """Return the images to adopt before the epoch that starts after `step` steps, or None if there are no new ones.

        Raises what decoding raised. Raises RuntimeError if a chunk has been decoded for too long: then the process must
        end, and its notes name the image.
        """
        self._check_progress(self._clock())
        if self._to_repeat:
            if step < self._to_repeat[0].step:
                return None
            num_images = self._to_repeat.popleft().num_images
            # The step is that of the earlier adoption, unless images were lost since and epochs are shorter now.
            return self._cache.first(num_images), Adoption(step=step, epoch=epoch, num_images=num_images)
        before = len(self._cache)
        while not self._decoded.empty():
            more = self._decoded.get()
            if isinstance(more, BaseException):
                raise more
            self._cache = self._builder.extend(self._cache, more)
            self._waiting_bytes -= more.device_bytes
        if len(self._cache) == before:
            return None
        return self._cache, Adoption(step=step, epoch=epoch, num_images=len(self._cache))

    def _decode(self) -> None:
        try:
            while not self._stopped():
                message = self._added.get()
                rows = SnapshotRows.received(message.dataset_dir, message.blobs).all()
                held_bytes = self._cache.device_bytes + self._waiting_bytes
                more = self._builder.decode(rows, self._alive, beside_training=True, held_bytes=held_bytes)
                self._busy_since = None
                if self._stopped():  # some images were left unread
                    return
                self._report(more)
                self._waiting_bytes += more.device_bytes
                self._decoded.put(more)
        except BaseException as error:
            self._decoded.put(error)

    def _check_progress(self, now: float) -> None:
        busy_since = self._busy_since  # the other thread changes it
        if busy_since is None or now - busy_since <= HANGING_S:
            self._late_since = None
        elif self._late_since is None:
            self._late_since = now
        elif now - self._late_since > SECOND_LOOK_S:
            raise RuntimeError(f"decoding beside training made no progress for {HANGING_S:g} seconds")

    def _alive(self) -> bool:
        self._busy_since = self._clock()
        return self._stopped()
