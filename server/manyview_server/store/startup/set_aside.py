"""Move data that the database does not know to `set-aside/TIME/`, under the path that it had.

The server never reads or removes anything there.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from pathlib import Path

from manyview_server.store.durable_files import sync_directory

NAME = "set-aside"

log = logging.getLogger(__name__)


class SetAside:
    """One start's directory, made when the first thing is moved."""

    def __init__(self, data_dir: Path, now: float) -> None:
        self._data_dir = data_dir
        self._name = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime(now))
        self._directory: Path | None = None

    def move(self, path: Path) -> Path:
        """Move a file or directory of the data directory, and log it. Raises OSError."""
        target = self._target(path)
        try:
            path.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # An operator has put the directory on a file system of its own.
            shutil.move(path, target)
            os.sync()
        sync_directory(path.parent)
        sync_directory(target.parent)
        log.warning("%s is not known to the database, so it was moved to %s", self._relative(path), target)
        return target

    def cut(self, path: Path, start: int) -> Path:
        """Move the bytes of a file from `start` on to a file of their own, and log it. Raises OSError."""
        target = self._target(path).with_name(f"{path.name}.from-byte-{start}")
        with path.open("rb") as source, target.open("xb") as copy:
            os.fchmod(copy.fileno(), 0o600)
            source.seek(start)
            shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        sync_directory(target.parent)
        os.truncate(path, start)
        log.warning(
            "the database has %s only up to byte %d: the bytes after that were moved to %s",
            self._relative(path),
            start,
            target,
        )
        return target

    def _relative(self, path: Path) -> Path:
        return path.relative_to(self._data_dir)

    def _target(self, path: Path) -> Path:
        if self._directory is None:
            self._directory = self._make()
        parent = self._directory
        for part in self._relative(path).parent.parts:
            (parent / part).mkdir(mode=0o700, exist_ok=True)
            sync_directory(parent)
            parent /= part
        return parent / path.name

    def _make(self) -> Path:
        """Make a new directory for this second, and return it."""
        parent = self._data_dir / NAME
        parent.mkdir(mode=0o700, exist_ok=True)
        for number in range(1, 1000):
            directory = parent / (self._name if number == 1 else f"{self._name}-{number}")
            try:
                directory.mkdir(mode=0o700)
            except FileExistsError:
                continue
            sync_directory(self._data_dir)
            sync_directory(parent)
            return directory
        raise FileExistsError(f"{parent} has a thousand directories of {self._name}")
