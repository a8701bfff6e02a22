"""Files and folders that a command names. They are looked at before the server is asked for anything."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_PATTERN = frozenset("*?[{")


def require_sources(paths: Iterable[str] | None) -> None:
    """Raise FileNotFoundError if one of these files and folders does not exist. Patterns are left to the upload."""
    for path in paths or ():
        if _PATTERN.isdisjoint(path) and not os.path.exists(path):
            raise FileNotFoundError(f"{path} does not exist")


def require_folder_of(path: Path, option: str = "--out") -> None:
    """Raise FileNotFoundError if the folder of a file to write does not exist: the work would be lost."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{option} {path}: the directory {path.parent} does not exist")
