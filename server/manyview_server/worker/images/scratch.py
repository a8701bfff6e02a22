"""Memory in a file, for decoded images that do not fit into memory."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manyview_server.system.disk_space import DISK_FULL_ERRNOS, free_bytes, reserve_bytes
from manyview_server.worker.training_failed import TrainingFailed

HINT = (
    "Free disk space on the server and resume the job, or cancel it and create it again with a smaller decode_size "
    "or image_size."
)


class ScratchDiskFull(TrainingFailed):
    """The disk has no room for a scratch file. The job waits until there is room."""

    def __init__(self, num_bytes: int, directory: Path) -> None:
        free, reserve = free_bytes(directory), reserve_bytes(directory)
        message = (
            f"the decoded images need a scratch file of {num_bytes:,} bytes, and the server's disk has {free:,} bytes "
            f"free, of which {reserve:,} must stay free"
        )
        super().__init__("DISK_FULL", message, HINT)


def allocate(directory: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return zeros of this shape (uint8) in a file without a name, which disappears with the process.

    Every block of the file is allocated here. Otherwise a write into the mapped file that finds no block would be a
    signal, which kills the process, instead of an error. If the file system cannot allocate, blocks are written.

    Args:
        directory: where the file lies. It is created if it is missing.
        shape: the shape, with at least one element.

    Raises:
        ScratchDiskFull: there is no room. Blocks that were allocated until then are freed.
    """
    num_bytes = int(np.prod(shape, dtype=np.int64))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if num_bytes > free_bytes(directory) - reserve_bytes(directory):
            raise ScratchDiskFull(num_bytes, directory)
        with tempfile.TemporaryFile(dir=directory) as file:
            os.posix_fallocate(file.fileno(), 0, num_bytes)
            return np.memmap(file, np.uint8, "r+", shape=shape)
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        raise ScratchDiskFull(num_bytes, _existing(directory)) from error


def _existing(directory: Path) -> Path:
    """Return the directory, or the nearest one above it that exists."""
    return next(path for path in (directory, *directory.parents) if path.is_dir())
