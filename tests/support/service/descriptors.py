"""The descriptors that this process has open.

A test compares what they refer to, and not how many there are: what an earlier test left behind may be closed at any
moment.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def open_descriptors() -> set[str]:
    """The number of each descriptor with what it refers to: a path, or the number of a pipe or socket."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # it was that of the list itself, or was closed in between
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
    return found


def open_files(folder: Path) -> list[str]:
    """The names of the files in a folder that are open, once for each descriptor."""
    prefix = f"{folder.resolve()}/"
    targets = (entry.partition(" ")[2] for entry in open_descriptors())
    return sorted(target.removeprefix(prefix) for target in targets if target.startswith(prefix))
