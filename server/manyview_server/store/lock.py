"""The lock on a data directory: one server at a time.

This file needs the standard library alone. The server takes the lock before it imports anything else, so that a second
server reports at once that the directory is in use.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from manyview_server.store.unusable import StoreLocked

NAME = "LOCK"


@dataclass(frozen=True, slots=True)
class DataLock:
    """A lock that is held until `release` or the end of the process."""

    data_dir: Path
    fd: int

    @classmethod
    def take(cls, data_dir: Path, *, create: bool = True) -> DataLock:
        """Lock the directory, which must exist.

        Raises:
            StoreLocked: another process holds the lock.
            FileNotFoundError: there is no lock file, and `create` is false.
        """
        path = data_dir / NAME
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise StoreLocked(f"{data_dir} is in use by another server") from error
        return cls(data_dir, fd)

    def release(self) -> None:
        """Release the lock, so that another server can take it."""
        os.close(self.fd)
