"""Syncs of files and directories, with an error of their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


class SyncFailed(OSError):
    """The disk refused a sync: what it holds is unknown, and asking again would not tell."""


def sync_directory(directory: Path) -> None:
    """Make the directory's entries durable. Raises SyncFailed."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        synced(os.fsync, fd)
    finally:
        os.close(fd)


def synced(sync: Any, fd: int) -> None:
    """Call `os.fsync` or `os.fdatasync`. Raises SyncFailed."""
    try:
        sync(fd)
    except OSError as error:
        raise SyncFailed(error.errno, error.strerror) from error
