"""Lock the data directory before the settings are read in full."""

from __future__ import annotations

from pathlib import Path

from manyview_server.store.lock import DataLock


def take(data: str) -> DataLock | None:
    """Lock a data directory. Return None if there is no store yet, or no directory is named.

    Raises:
        StoreLocked: another server holds the lock.
    """
    if not data:
        return None
    try:
        return DataLock.take(Path(data).resolve(), create=False)
    except OSError:  # the store reports it, once the settings are known to be right
        return None
