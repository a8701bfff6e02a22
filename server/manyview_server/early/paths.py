"""Find out whether the files that the settings name exist, and whether the data directory can be made."""

from __future__ import annotations

import os
from pathlib import Path

from manyview_server.early.settings import EarlySettings


class PathUnusable(Exception):
    """A file or directory of the settings cannot be used. `str()` names the setting and the path."""


def check(settings: EarlySettings) -> None:
    """Raise PathUnusable for the first path that is missing or not allowed."""
    for flag, name in (
        ("tls-cert", settings.tls_cert),
        ("tls-key", settings.tls_key),
        ("token-file", settings.token_file),
    ):
        if name and not os.access(name, os.R_OK):
            why = "may not be read by this user" if os.path.exists(name) else "does not exist"
            raise PathUnusable(f"--{flag} {name}: the file {why}")
    if settings.data:
        _check_data(Path(settings.data))


def _check_data(data: Path) -> None:
    """The directory may be missing. Then the nearest directory above it must be one in which it can be made."""
    found = next(path for path in (data, *data.absolute().parents) if os.path.lexists(path))
    if not found.is_dir():
        raise PathUnusable(f"--data {data}: {found} is not a directory")
    if not os.access(found, os.W_OK | os.X_OK):
        what = "this user may not write to it" if found == data else f"it cannot be made, because {found} is read-only"
        raise PathUnusable(f"--data {data}: {what}. Choose another directory, or change its owner")
