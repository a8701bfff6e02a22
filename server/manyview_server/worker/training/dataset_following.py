"""Images that come in while a job trains: decoded beside it, adopted at the beginning of an epoch.

An epoch is always one pass over one snapshot. What was adopted at which step is told, and an attempt that goes on from
a checkpoint adopts the same at the same steps again before it takes what is new: so it computes the same.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

import numpy as np

from manyview_server.messages.training import Adoption, ImagesAdded
from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.worker.images.cache import CacheBuilder, ImageCache

HANGING_S = 600.0
"""For a chunk of some images."""
SECOND_LOOK_S = 60.0
"""The delay before a chunk that takes too long is checked again: the machine may have slept during it."""


class Following:
    """The data set of a job, as it grows. `start` it once; then `next` between two steps."""

    def __init__(
        self,
        builder: CacheBuilder,
        cache: ImageCache,
        repeated: Iterable[Adoption],
        added: queue.SimpleQueue[ImagesAdded],
        *,
        report: Callable[[ImageCache], None],
        stopped: Callable[[], bool],
    ) -> None:
        """
        Args:
            cache: what is decoded so far; it holds the images of all that is `repeated`.
            repeated: what an earlier attempt adopted after the checkpoint, in order.
            added: what the front sends.
            report: called, from the thread, with what was decoded of each of these.
        """
        self._builder = builder
        self._cache = cache
        self._repeated = deque(repeated)
        self._added = added
        self._report = report
        self._stopped = stopped
        self._decoded: queue.SimpleQueue[ImageCache | BaseException] = queue.SimpleQueue()
        self._waiting_bytes = 0  # of the device, by what is decoded and not adopted yet
        self._busy_since: float | None = None
        self._late_since: float | None = None

    def start(self) -> None:
        """Decode what is added from now on, in a thread."""
        threading.Thread(target=self._decode, name="following", daemon=True).start()

    def next(self, step: int, epoch: int) -> tuple[ImageCache, Adoption] | None:
        """What to adopt before the epoch that begins after `step` steps; None to stay with what there is.

        Raises what decoding raised, and RuntimeError where a chunk has been decoded for too long: the process is to
        end, and its notes tell of which image.
        """
        self._check_progress(time.monotonic())
        if self._repeated:
            if step < self._repeated[0].step:
                return None
            num_images = self._repeated.popleft().num_images
            # Its step, unless images were lost since: then epochs are shorter than they were.
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
                rows = np.frombuffer(self._added.get().blobs[0], SNAPSHOT_DTYPE)
                held_bytes = self._cache.device_bytes + self._waiting_bytes
                more = self._builder.decode(rows, self._alive, beside_training=True, held_bytes=held_bytes)
                self._busy_since = None
                if self._stopped():  # part of it was left unread
                    return
                self._report(more)
                self._waiting_bytes += more.device_bytes
                self._decoded.put(more)
        except BaseException as error:
            self._decoded.put(error)

    def _check_progress(self, now: float) -> None:
        busy_since = self._busy_since  # set by the other thread
        if busy_since is None or now - busy_since <= HANGING_S:
            self._late_since = None
        elif self._late_since is None:
            self._late_since = now
        elif now - self._late_since > SECOND_LOOK_S:
            raise RuntimeError(f"decoding beside training made no progress for {HANGING_S:g} seconds")

    def _alive(self) -> bool:
        self._busy_since = time.monotonic()
        return self._stopped()
