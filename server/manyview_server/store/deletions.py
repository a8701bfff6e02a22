"""Removal of deleted data in two steps, so that a crash cannot lose the second one.

The transaction that deletes a data set or job adds a row to the table `trash`. The directories and the many rows are
removed after it. Rows are removed in chunks, so that a data set of millions of images does not hold up other commits.
How long a chunk takes depends on the size of the database and on the disk, so chunks follow the time of those before.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from manyview_server.store.database.database import Database

log = logging.getLogger(__name__)

CHUNK_ROWS = 500
"""The rows of the first chunk of a sweep, and the fewest of any."""
MAX_CHUNK_ROWS = 20_000
CHUNK_S = 0.02
"""The time that a chunk should take, with its commit."""

# The tables whose rows belong to a deleted data set or job, with the column that orders them.
DATASET_TABLES = {"image": "position", "label": "ordinal", "rejected": "ordinal", "unreadable": "position"}
JOB_TABLES = {"event": "sequence"}


class Deletions:
    """The deletions that are not finished."""

    def __init__(self, database: Database, data_dir: Path) -> None:
        self._database = database
        self._data_dir = data_dir
        # The directories that a sweep is removing now.
        self._being_removed: set[str] = set()

    def add(self, connection: sqlite3.Connection, directory: Path, *, dataset: int = 0, job: int = 0) -> None:
        """Note that this directory and the rows of this data set or job must be removed.

        Call it within the transaction that deletes them, and `sweep` after it.
        """
        relative = str(directory.relative_to(self._data_dir))
        connection.execute("INSERT INTO trash (directory, dataset, job) VALUES (?, ?, ?)", (relative, dataset, job))

    async def sweep(self) -> None:
        """Finish all deletions."""
        num_rows = CHUNK_ROWS
        while num_rows:
            num_rows = await self._database.call(partial(self._remove_rows, num_rows))
        for pk, directory in await self._database.read(_directories):
            if directory in self._being_removed:
                continue
            self._being_removed.add(directory)
            try:
                if await asyncio.to_thread(self._remove, directory):
                    await self._database.write(partial(_forget, pk=pk), vital=True)
            finally:
                self._being_removed.discard(directory)

    def sweep_at_start(self) -> None:
        """Finish the deletions that a crash interrupted.

        Call it on the database thread, before there is an event loop.
        """
        num_rows = CHUNK_ROWS
        while num_rows:
            num_rows = self._remove_rows(num_rows)
        for pk, directory in self._database.transact(_directories):
            if self._remove(directory):
                self._database.transact(partial(_forget, pk=pk), vital=True)

    def _remove_rows(self, num_rows: int) -> int:
        """Remove a chunk of rows. Return how many the next one should have, or 0 if no row was left.

        Call it on the database thread.
        """
        began = time.monotonic()
        if not self._database.transact(partial(_remove_chunk, most=num_rows), vital=True):
            return 0
        factor = CHUNK_S / max(time.monotonic() - began, 1e-6)
        return round(min(MAX_CHUNK_ROWS, max(CHUNK_ROWS, num_rows * min(2.0, max(0.5, factor)))))

    def _remove(self, directory: str) -> bool:
        """Remove a directory. Return False if a part of it is left, which the next sweep removes."""
        path = self._data_dir / directory
        shutil.rmtree(path, ignore_errors=True)
        if path.exists():
            log.warning("%s was deleted, but cannot be removed now: the next deletion or start tries again", directory)
            return False
        return True


def _directories(connection: sqlite3.Connection) -> list[tuple[int, str]]:
    return connection.execute("SELECT pk, directory FROM trash").fetchall()


def _forget(connection: sqlite3.Connection, pk: int) -> None:
    """Forget an entry unless rows of it are left.

    Another deletion may have come after this sweep removed the last rows. That deletion's own sweep removes its rows.
    """
    row = connection.execute("SELECT dataset, job FROM trash WHERE pk = ?", (pk,)).fetchone()
    if row is not None and not any(_has_rows(connection, *kind) for kind in _tables_of(*row)):
        connection.execute("DELETE FROM trash WHERE pk = ?", (pk,))


def _remove_chunk(connection: sqlite3.Connection, most: int) -> bool:
    """Delete at most this many rows. Return False if no row was left."""
    owners = connection.execute("SELECT dataset, job FROM trash WHERE dataset <> 0 OR job <> 0").fetchall()
    for table, order, owner, pk in (kind for row in owners for kind in _tables_of(*row)):
        chunk = f"SELECT {order} FROM {table} WHERE {owner} = ? ORDER BY {order} LIMIT {most}"
        delete = f"DELETE FROM {table} WHERE {owner} = ? AND {order} IN ({chunk})"
        if connection.execute(delete, (pk, pk)).rowcount:
            return True
    return False


def _tables_of(dataset: int, job: int) -> Iterator[tuple[str, str, str, int]]:
    """Yield the tables with rows of a data set or job: table, the column that orders it, the owner's column and
    value."""
    if dataset:
        yield from ((table, order, "dataset", dataset) for table, order in DATASET_TABLES.items())
    if job:
        yield from ((table, order, "job", job) for table, order in JOB_TABLES.items())


def _has_rows(connection: sqlite3.Connection, table: str, order: str, owner: str, pk: int) -> bool:
    return connection.execute(f"SELECT 1 FROM {table} WHERE {owner} = ? LIMIT 1", (pk,)).fetchone() is not None
