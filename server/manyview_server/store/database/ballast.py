"""Room on the disk that is held, and given up when the disk is full: what must be noted then can be.

Uploads stop before the disk is full; checkpoints and other programs do not. Without this the end of a job could not be
written down, nor a deletion that would make room.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

MAX_BYTES = 16 << 20

log = logging.getLogger(__name__)


class Ballast:
    """A file of `num_bytes` that holds nothing. On the database thread only."""

    def __init__(self, path: Path, reserve_bytes: int) -> None:
        """It is laid down while `reserve_bytes` remain free beside it."""
        self._path = path
        self._reserve_bytes = reserve_bytes
        self.num_bytes = min(MAX_BYTES, reserve_bytes)
        self.held = False

    def take(self) -> None:
        """Hold the room, if it is not held and there is enough; else later."""
        if self.held or self.num_bytes == 0:
            return
        with suppress(OSError):
            self.held = self._is_there() or (self._has_room() and self._allocate())

    def drop(self) -> bool:
        """Give the room up; False where none was held."""
        if not self.held:
            return False
        log.warning("the disk is full: giving up the %d bytes that were held for this", self.num_bytes)
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
