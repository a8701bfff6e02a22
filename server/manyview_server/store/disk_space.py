"""How much room a disk has, and how much of it stays free of images and scratch files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

RESERVE_BYTES = 512 << 20
RESERVE_FRACTION = 0.05
"""The database and checkpoints must find room when nothing else does: 512 MiB, or a twentieth of a small disk."""
DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The disk is full, or what this user may take of it."""


def free_bytes(directory: Path) -> int:
    """Return what a process without privileges can still write to the disk that holds the directory. Raises OSError."""
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


def reserve_bytes(directory: Path) -> int:
    """Return what stays free on the disk that holds the directory. Raises OSError."""
    disk = os.statvfs(directory)
    return min(RESERVE_BYTES, int(disk.f_blocks * disk.f_frsize * RESERVE_FRACTION))
