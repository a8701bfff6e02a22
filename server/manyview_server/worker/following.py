"""Images that come in while a job trains: decoded beside it, adopted at the beginning of an epoch.

An epoch is always one pass over one snapshot. What was adopted at which step is told, and an attempt that goes on from
a checkpoint adopts the same at the same steps again before it takes what is new: so it computes the same.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable

import numpy as np

from manyview_server.messages import Adoption, ImagesAdded
from manyview_server.store.shards import SNAPSHOT_DTYPE
from manyview_server.worker.cache import CacheBuilder, ImageCache


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

    def start(self) -> None:
        """Decode what is added from now on, in a thread."""
        threading.Thread(target=self._decode, name="following", daemon=True).start()

    def next(self, step: int, epoch: int) -> tuple[ImageCache, Adoption] | None:
        """What to adopt before the epoch that begins after `step` steps; None to stay with what there is.

        Raises what decoding raised.
        """
        if self._repeated:
            if step < self._repeated[0].step:
                return None
            adoption = self._repeated.popleft()
            return self._cache.first(adoption.num_images), adoption
        before = len(self._cache)
        while not self._decoded.empty():
            more = self._decoded.get()
            if isinstance(more, BaseException):
                raise more
            self._cache = self._builder.extend(self._cache, more)
        if len(self._cache) == before:
            return None
        return self._cache, Adoption(step=step, epoch=epoch, num_images=len(self._cache))

    def _decode(self) -> None:
        try:
            while not self._stopped():
                rows = np.frombuffer(self._added.get().blobs[0], SNAPSHOT_DTYPE)
                more = self._builder.decode(rows, self._stopped, beside_training=True)
                if self._stopped():  # part of it was left unread
                    return
                self._report(more)
                self._decoded.put(more)
        except BaseException as error:
            self._decoded.put(error)
