"""What was deleted: a row in the transaction that deletes, then the slow part, which a crash cannot lose.

Rows go in chunks, so that commits of others are not held up by a data set of a million images.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from functools import partial
from pathlib import Path

from manyview_server.store.database import Database

CHUNK_ROWS = 20_000

# The tables whose rows belong to a deleted data set or job, with the column that orders them.
DATASET_TABLES = {"image": "position", "label": "ordinal", "rejected": "ordinal", "unreadable": "position"}
JOB_TABLES = {"event": "sequence"}


class Trash:
    """Removes what was thrown away."""

    def __init__(self, database: Database, data_dir: Path) -> None:
        self._database = database
        self._data_dir = data_dir

    def put(self, connection: sqlite3.Connection, directory: Path, *, dataset: int = 0, job: int = 0) -> None:
        """Within the transaction that deletes: this directory, and the rows of this data set or job, are to go."""
        relative = str(directory.relative_to(self._data_dir))
        connection.execute("INSERT INTO trash (directory, dataset, job) VALUES (?, ?, ?)", (relative, dataset, job))

    async def sweep(self) -> None:
        """Remove everything that is in the trash."""
        while await self._database.write(_remove_chunk, vital=True):
            pass
        for pk, directory in await self._database.read(_contents):
            await asyncio.to_thread(shutil.rmtree, self._data_dir / directory, ignore_errors=True)
            await self._database.write(partial(_forget, pk=pk), vital=True)

    def sweep_at_start(self) -> None:
        """The same before there is an event loop: what a crash left behind. On the database thread."""
        while self._database.transact(_remove_chunk, vital=True):
            pass
        for pk, directory in self._database.transact(_contents):
            shutil.rmtree(self._data_dir / directory, ignore_errors=True)
            self._database.transact(partial(_forget, pk=pk), vital=True)


def _contents(connection: sqlite3.Connection) -> list[tuple[int, str]]:
    return connection.execute("SELECT pk, directory FROM trash").fetchall()


def _forget(connection: sqlite3.Connection, pk: int) -> None:
    connection.execute("DELETE FROM trash WHERE pk = ?", (pk,))


def _remove_chunk(connection: sqlite3.Connection) -> bool:
    """Delete some rows; False when none are left."""
    owners = connection.execute("SELECT dataset, job FROM trash WHERE dataset <> 0 OR job <> 0").fetchall()
    for dataset, job in owners:
        tables, owner, pk = (DATASET_TABLES, "dataset", dataset) if dataset else (JOB_TABLES, "job", job)
        for table, order in tables.items():
            chunk = f"SELECT {order} FROM {table} WHERE {owner} = ? ORDER BY {order} LIMIT {CHUNK_ROWS}"
            delete = f"DELETE FROM {table} WHERE {owner} = ? AND {order} IN ({chunk})"
            if connection.execute(delete, (pk, pk)).rowcount:
                return True
    return False
