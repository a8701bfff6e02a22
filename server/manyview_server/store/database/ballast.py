"""A file that occupies room on the disk and is removed when the disk is full, so that vital commits still succeed.

Uploads stop before the disk is full, but checkpoints and other programs do not. Without the ballast, neither the end of
a job nor a deletion that would make room could be written.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

MAX_BYTES = 16 << 20

log = logging.getLogger(__name__)


class Ballast:
    """A file of `num_bytes` without contents. On the database thread only."""

    def __init__(self, path: Path, reserve_bytes: int) -> None:
        """`reserve_bytes` must remain free beside the file when it is made."""
        self._path = path
        self._reserve_bytes = reserve_bytes
        self.num_bytes = min(MAX_BYTES, reserve_bytes)
        self.held = False

    def take(self) -> None:
        """Make the file if it is missing and there is enough room. Otherwise a later call makes it."""
        if self.held or self.num_bytes == 0:
            return
        with suppress(OSError):
            self.held = self._is_there() or (self._has_room() and self._allocate())

    def drop(self) -> bool:
        """Remove the file. Return False if it was not held."""
        if not self.held:
            return False
        log.warning(
            "the disk is full: the ballast of %d bytes is removed to make room for vital commits", self.num_bytes
        )
        self._path.unlink(missing_ok=True)
        self.held = False
        return True

    def _is_there(self) -> bool:
        return self._path.exists() and self._path.stat().st_size == self.num_bytes

    def _has_room(self) -> bool:
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize >= self._reserve_bytes + self.num_bytes

    def _allocate(self) -> bool:
        fd = os.open(self._path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(fd, 0, self.num_bytes)
            return True
        except OSError:
            self._path.unlink(missing_ok=True)
            return False
        finally:
            os.close(fd)
