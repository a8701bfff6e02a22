"""Syncs of files and directories. They raise an error of their own, on which the server must exit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


class SyncFailed(OSError):
    """The disk refused a sync. It is unknown what the disk holds, and a second sync would not reveal it."""


def sync_directory(directory: Path) -> None:
    """Make the entries of a directory durable. Raises SyncFailed."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file(os.fsync, fd)
    finally:
        os.close(fd)


def sync_file(sync: Callable[[int], None], fd: int) -> None:
    """Call `sync`, which is `os.fsync` or `os.fdatasync`. Raises SyncFailed."""
    try:
        sync(fd)
    except OSError as error:
        raise SyncFailed(error.errno, error.strerror) from error
