"""Batches of an upload."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from manyview._types.server import Limits
from manyview._uploads.encoded_image import EncodedImage

# Large enough to make the cost per message small, small enough for a smooth window.
BATCH_BYTES = 1_500_000
_BATCH_IMAGES = 256
LINGER_S = 0.5
"""The longest time that an image waits for others to share its batch."""


class Batcher:
    """Groups images into batches that fit into a message. A large image has a batch of its own."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        # 0 means that the server has no limit.
        self._max_images = min(_BATCH_IMAGES, limits.max_batch_images) if limits.max_batch_images else _BATCH_IMAGES
        self._clock = clock
        self._whole: deque[list[EncodedImage]] = deque()
        self._open: list[EncodedImage] = []
        self._num_bytes = 0
        self._since = 0.0

    @property
    def is_empty(self) -> bool:
        return not self._whole and not self._open

    @property
    def room(self) -> tuple[int, int]:
        """The images and the bytes that can be added before there is a batch to take."""
        if self._whole:
            return 0, 0
        return self._max_images - len(self._open), BATCH_BYTES - self._num_bytes

    def add(self, image: EncodedImage) -> None:
        """Add an image after the others."""
        if self._open and self._num_bytes + len(image.data) > BATCH_BYTES:
            self.close()
        if not self._open:
            self._since = self._clock()
        self._open.append(image)
        self._num_bytes += len(image.data)
        if len(self._open) >= self._max_images:
            self.close()

    def close(self) -> None:
        """Make the images of the open batch a whole one, without waiting for more."""
        if self._open:
            self._whole.append(self._open)
        self._open, self._num_bytes = [], 0

    def due_s(self) -> float | None:
        """Return the seconds until `take` returns a batch if no image is added, or None if there is no image."""
        if self._whole:
            return 0.0
        return max(0.0, self._since + LINGER_S - self._clock()) if self._open else None

    def take(self) -> list[EncodedImage] | None:
        """Return the next batch that is full or has waited long enough."""
        if self.due_s() == 0 and not self._whole:
            self.close()
        return self._whole.popleft() if self._whole else None

    def take_back(self) -> EncodedImage | None:
        """Take the first image out of its batch and return it, or return None if there are no images."""
        batch = self._whole[0] if self._whole else self._open
        if not batch:
            return None
        image = batch.pop(0)
        if batch is self._open:
            self._num_bytes -= len(image.data)
        elif not batch:
            self._whole.popleft()
        return image
