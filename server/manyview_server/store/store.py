"""Everything that must survive, behind one door: `Store.open`, five collections, `close`.

    data_dir/LOCK                        one server per data directory
    data_dir/manyview.sqlite             registry, image index, jobs, event log
    data_dir/datasets/<uid>/shard-*.tar  the images
    data_dir/jobs/<uid>/checkpoints/     the checkpoints
    data_dir/embeddings/<uid>/           embeddings of a data set, which can be made again
    data_dir/weights/NAME.safetensors    the operator's own weights for plain backbones
    data_dir/BALLAST                     room that is given up when the disk is full

Asynchronous on the surface; beneath, all of it runs on one database thread. `datasets`, `uploads`, `jobs`, `events` and
`requests` document their methods.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from manyview_server.store.ballast import Ballast
from manyview_server.store.blocks import TEMPORARY_SUFFIX
from manyview_server.store.database import Database, StoreLocked
from manyview_server.store.datasets import DatasetStore
from manyview_server.store.disk_space import reserve_bytes as reserve_bytes_of
from manyview_server.store.embedding_cache import remove
from manyview_server.store.events import EventLog
from manyview_server.store.ingest import Ingest
from manyview_server.store.jobs import JobStore
from manyview_server.store.requests import RequestLog
from manyview_server.store.shards import Position, recover, shard_path, sync_directory
from manyview_server.store.trash import Trash
from manyview_server.store.uploads import UploadStore
from manyview_server.store.writers import ShardWriters

log = logging.getLogger(__name__)


class Store:
    """An open data directory."""

    def __init__(self, data_dir: Path, lock_fd: int, reserve_bytes: int, clock: Callable[[], float]) -> None:
        self._data_dir = data_dir
        self._lock_fd = lock_fd
        self._database = Database(data_dir / "manyview.sqlite", Ballast(data_dir / "BALLAST", reserve_bytes))
        self._writers = ShardWriters(self.datasets_dir)
        self._trash = Trash(self._database, data_dir)
        self.events = EventLog(self._database, clock=clock)
        self.datasets = DatasetStore(
            self._database, self.datasets_dir, self._writers, self._trash, clock, embeddings_dir=self.embeddings_dir
        )
        self.uploads = UploadStore(self._database, Ingest(self._database, self._writers, data_dir, reserve_bytes))
        self.jobs = JobStore(
            self._database, self.events, self.jobs_dir, self._trash, clock, embeddings_dir=self.embeddings_dir
        )
        self.requests = RequestLog(self._database, clock)

    @classmethod
    def open(cls, data_dir: Path, *, reserve_bytes: int | None = None, clock: Callable[[], float] = time.time) -> Store:
        """Open or create a data directory and recover what a crash left: it looks at tails only, whatever the size.

        `reserve_bytes` of the disk are kept free of uploads. Raises StoreLocked, StoreTooNew, StoreCorrupt.
        """
        data_dir = data_dir.resolve()
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_fd = _lock(data_dir / "LOCK")
        try:
            if reserve_bytes is None:
                reserve_bytes = reserve_bytes_of(data_dir)
            store = cls(data_dir, lock_fd, reserve_bytes, clock)
            store._start()
        except BaseException:
            os.close(lock_fd)
            raise
        return store

    @property
    def datasets_dir(self) -> Path:
        """Holds a directory for each data set, by its uid."""
        return self._data_dir / "datasets"

    @property
    def jobs_dir(self) -> Path:
        """Holds a directory for each job, by its uid."""
        return self._data_dir / "jobs"

    @property
    def embeddings_dir(self) -> Path:
        """Holds a directory for each data set, by its uid, with the tables of its embeddings."""
        return self._data_dir / "embeddings"

    @property
    def weights_dir(self) -> Path:
        """Holds the operator's own weights for plain backbones."""
        return self._data_dir / "weights"

    async def close(self) -> None:
        """Make durable what waits, close the database, release the directory."""
        await self.uploads.close()
        await self.events.close()
        await self._database.call(self._writers.close)
        self._database.close()
        os.close(self._lock_fd)

    def _start(self) -> None:
        for directory in (self.datasets_dir, self.jobs_dir, self.embeddings_dir, self.weights_dir):
            directory.mkdir(mode=0o700, exist_ok=True)
        self._database.open()
        try:
            sync_directory(self._data_dir)
            self._database.run(self._trash.sweep_at_start)
            self._database.run(lambda: self._database.transact(self._recover_shards))
            self._database.run(lambda: self._database.transact(self._remove_jobs_never_made))
            self._database.run(lambda: self._database.transact(self._remove_embeddings_of_none))
        except BaseException:
            self._database.close()
            raise

    def _remove_jobs_never_made(self, connection: sqlite3.Connection) -> None:
        """Directories of jobs whose rows were not committed before a crash; they may hold links to checkpoints."""
        known = {uid for (uid,) in connection.execute("SELECT uid FROM job")}
        for directory in self.jobs_dir.iterdir():
            if directory.name not in known:
                shutil.rmtree(directory, ignore_errors=True)

    def _remove_embeddings_of_none(self, connection: sqlite3.Connection) -> None:
        """Tables whose data set or job is gone, and what a crash left unfinished in others."""
        datasets = {uid for (uid,) in connection.execute("SELECT uid FROM dataset")}
        owners = {"backbone", *(uid for (uid,) in connection.execute("SELECT uid FROM job"))}
        for table in self.embeddings_dir.glob("*/*"):
            if table.parent.name not in datasets or table.name.partition("-")[0] not in owners:
                remove(table)
        for unfinished in self.embeddings_dir.glob(f"*/*/*{TEMPORARY_SUFFIX}"):
            unfinished.unlink(missing_ok=True)

    def _recover_shards(self, connection: sqlite3.Connection) -> None:
        for pk, uid, shard, end in connection.execute("SELECT pk, uid, shard, shard_bytes FROM dataset").fetchall():
            committed = Position(shard, end)
            resumed = recover(self.datasets_dir / uid, committed)
            if resumed != committed:
                log.error("shard %d of data set %s is shorter than what was committed: images are lost", shard, uid)
                _mark_lost(connection, pk, shard, shard_path(self.datasets_dir / uid, shard))
                sql = "UPDATE dataset SET shard = ?, shard_bytes = ? WHERE pk = ?"
                connection.execute(sql, (*resumed, pk))


def _mark_lost(connection: sqlite3.Connection, pk: int, shard: int, path: Path) -> None:
    """List the images beyond the end of a shard that lost bytes as unreadable."""
    size = path.stat().st_size if path.exists() else 0
    sql = """
        INSERT OR IGNORE INTO unreadable
        SELECT dataset, position, 'BYTES_LOST', 'the disk lost its bytes' FROM image
        WHERE dataset = ? AND shard = ? AND offset + length > ?
    """
    lost = connection.execute(sql, (pk, shard, size)).rowcount
    connection.execute("UPDATE dataset SET num_unreadable = num_unreadable + ? WHERE pk = ?", (lost, pk))


def _lock(path: Path) -> int:
    """The lock, held until the file descriptor is closed or the process ends."""
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise StoreLocked(f"{path.parent} is in use by another server") from error
    return fd
