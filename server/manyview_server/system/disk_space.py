"""The room on a disk, and the part of it that stays free of images."""

from __future__ import annotations

import errno
import os
from pathlib import Path

RESERVE_BYTES = 512 << 20
RESERVE_FRACTION = 0.05
"""Room that is kept for the database and checkpoints: 512 MiB, or a twentieth of a small disk."""
DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors that mean that the disk, or this user's quota, is full."""


def free_bytes(directory: Path) -> int:
    """Return how many bytes an unprivileged process can still write to the disk of this directory. Raises OSError."""
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


def reserve_bytes(directory: Path) -> int:
    """Return how many bytes stay free on the disk of this directory. Raises OSError."""
    disk = os.statvfs(directory)
    return min(RESERVE_BYTES, int(disk.f_blocks * disk.f_frsize * RESERVE_FRACTION))
