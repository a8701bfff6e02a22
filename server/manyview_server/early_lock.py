"""Lock the data directory before the settings are read in full.

The reader of settings, gRPC and numpy take seconds to import on a busy machine. This reader knows one setting, `data`,
and needs the standard library alone. It ignores wrong settings, because the full reader reports them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from manyview_server.store.lock import DataLock

VARIABLE = "MANYVIEW_SERVER_"


def take(arguments: Sequence[str], environment: Mapping[str, str]) -> DataLock | None:
    """Lock the data directory that the settings name. Return None if there is no store yet, or no directory is named.

    Raises:
        StoreLocked: another server holds the lock.
    """
    data = _data(arguments, {name.upper(): value for name, value in environment.items()})
    if not data:
        return None
    try:
        return DataLock.take(Path(data).resolve(), create=False)
    except OSError:  # the store reports it, once the settings are known to be right
        return None


def _data(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    if data := _flag(arguments, "--data") or environment.get(f"{VARIABLE}DATA", ""):
        return data
    config = _flag(arguments, "--config") or environment.get(f"{VARIABLE}CONFIG", "")
    try:
        return str(tomllib.loads(Path(config).read_text()).get("data", "")) if config else ""
    except (OSError, ValueError):
        return ""


def _flag(arguments: Sequence[str], name: str) -> str:
    """Return the last value of a flag, or "" if it is not given."""
    value = ""
    for index, argument in enumerate(arguments):
        if argument == name:
            value = next(iter(arguments[index + 1 :]), "")
        elif argument.startswith(f"{name}="):
            value = argument.removeprefix(f"{name}=")
    return value
