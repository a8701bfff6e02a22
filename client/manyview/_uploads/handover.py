"""The queue of images from the caller's thread, which pulls them from the caller's iterator, to the thread that sends
them.

The iterator never leaves the caller's thread: a database cursor or a camera may be bound to that thread, exceptions
and Ctrl-C are raised where they belong, and the iterator is closed there.
"""

from __future__ import annotations

import threading
from collections import deque

from manyview._uploads.encoded_image import EncodedImage

_MAX_IMAGES = 256
_MAX_BYTES = 1_500_000
GATHER_S = 0.005
"""The longest time for which the sender leaves images in the queue, so that it is not woken for each of them."""


class UploadAbandoned(Exception):
    """The caller's thread has given up, so nothing more must be sent."""


class Handover:
    """A bounded queue of images, and the other signals between the two threads."""

    def __init__(self) -> None:
        lock = threading.Lock()
        self._for_sender = threading.Condition(lock)
        self._for_caller = threading.Condition(lock)
        self._images: deque[EncodedImage] = deque()
        self._num_bytes = 0
        self._num_gathered = 0
        """The images that the sender takes without waiting for more."""
        self._is_full = False
        """Does the caller's thread wait for room?"""
        self._is_complete = False
        self._is_stopped = False
        self._is_woken = False
        self._has_ended = False
        self._num_done = 0

    # --- the caller's thread

    def put(self, image: EncodedImage) -> bool:
        """Hand an image over. This waits while the queue is full. Returns False if the sender has ended."""
        size = len(image.data)
        with self._for_caller:
            if not self._has_room(size):
                self._is_full = True
                self._for_sender.notify_all()
                self._for_caller.wait_for(lambda: self._has_ended or self._has_room(size))
                self._is_full = False
            self._images.append(image)
            self._num_bytes += size
            if len(self._images) == 1:
                self._for_sender.notify_all()
            return not self._has_ended

    def complete(self) -> None:
        """Report that there are no more images."""
        with self._for_sender:
            self._is_complete = True
            self._for_sender.notify_all()

    def stop(self) -> None:
        """Make the sender raise UploadAbandoned at its next call."""
        with self._for_sender:
            self._is_stopped = True
            self._for_sender.notify_all()

    def collect_done(self) -> int:
        """Return how many images were dealt with since the last call of this method."""
        with self._for_caller:
            done, self._num_done = self._num_done, 0
            return done

    def wait_for_done(self) -> bool:
        """Wait until images were dealt with or the sender has ended. Returns whether it has ended."""
        with self._for_caller:
            self._for_caller.wait_for(lambda: self._has_ended or self._num_done)
            return self._has_ended

    # --- the sender's thread

    @property
    def is_exhausted(self) -> bool:
        """Is the queue empty, and will no more images come?"""
        with self._for_caller:
            return self._is_complete and not self._images

    def take(self, timeout_s: float | None = None) -> EncodedImage | None:
        """Return the next image, or None after `timeout_s`, at the end, or after `wake`. Raises UploadAbandoned."""
        with self._for_sender:
            if not self._num_gathered:
                self._for_sender.wait_for(lambda: self._has_news() or self._is_woken, timeout_s)
                if self._images:
                    self._for_sender.wait_for(self._has_gathered, GATHER_S)
                self._num_gathered = len(self._images)
            self._is_woken = False
            self._check()
            if not self._images:
                return None
            image = self._images.popleft()
            self._num_gathered -= 1
            self._num_bytes -= len(image.data)
            self._make_room()
            return image

    def take_gathered(self, num_images: int, num_bytes: int) -> list[EncodedImage]:
        """Return the next images for which `take` would not wait, at most so many, and at most so many bytes."""
        taken: list[EncodedImage] = []
        with self._for_sender:
            most = min(num_images, self._num_gathered)
            while len(taken) < most and len(self._images[0].data) <= num_bytes:
                taken.append(self._images.popleft())
                num_bytes -= len(taken[-1].data)
                self._num_bytes -= len(taken[-1].data)
            self._num_gathered -= len(taken)
            self._make_room()
        return taken

    def wait(self) -> None:
        """Wait for an image, or for the end of the images. Raises UploadAbandoned."""
        with self._for_sender:
            self._for_sender.wait_for(self._has_news)
            self._check()

    def sleep(self, seconds: float) -> None:
        """Sleep. Raises UploadAbandoned."""
        with self._for_sender:
            self._for_sender.wait_for(lambda: self._is_stopped, seconds)
            self._check()

    def check(self) -> None:
        """Raise UploadAbandoned if the caller's thread has given up."""
        with self._for_sender:
            self._check()

    def add_done(self, count: int) -> None:
        """Report that images were dealt with."""
        with self._for_caller:
            self._num_done += count
            self._for_caller.notify_all()

    def end(self) -> None:
        """Report that the sender has ended."""
        with self._for_caller:
            self._has_ended = True
            self._for_caller.notify_all()

    # --- any thread

    def wake(self) -> None:
        """Make `take` return, because there is something else to read."""
        with self._for_sender:
            self._is_woken = True
            self._for_sender.notify_all()

    def _has_room(self, size: int) -> bool:
        return not self._images or (len(self._images) < _MAX_IMAGES and self._num_bytes + size <= _MAX_BYTES)

    def _make_room(self) -> None:
        """Wake the caller's thread if it waits for room and half of it is free."""
        if self._is_full and 2 * len(self._images) <= _MAX_IMAGES and 2 * self._num_bytes <= _MAX_BYTES:
            self._for_caller.notify_all()

    def _has_news(self) -> bool:
        return bool(self._images) or self._is_complete or self._is_stopped

    def _has_gathered(self) -> bool:
        return self._is_full or self._is_woken or self._is_complete or self._is_stopped

    def _check(self) -> None:
        if self._is_stopped:
            raise UploadAbandoned
