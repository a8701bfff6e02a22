"""A data directory: `Store.open`, six collections, `close`.

    data_dir/LOCK                        one server per data directory
    data_dir/manyview.sqlite             registry, image index, jobs, event log
    data_dir/datasets/<uid>/shard-*.tar  the images
    data_dir/jobs/<uid>/checkpoints/     the checkpoints
    data_dir/embeddings/<uid>/           embeddings of a data set, which can be computed again
    data_dir/weights/NAME.safetensors    the operator's own weights for plain backbones
    data_dir/BALLAST                     a file that is removed when the disk is full
    data_dir/GENERATION                  a counter by which a start notices an older database
    data_dir/set-aside/TIME/             data that a start found and the database does not know

The methods are asynchronous, and all of them run on one database thread. The collections `datasets`, `uploads`, `jobs`,
`checkpoints`, `events` and `idempotency_log` document their own methods.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from manyview_server import failpoints
from manyview_server.store.database.ballast import Ballast
from manyview_server.store.database.database import Database
from manyview_server.store.deletions import Deletions
from manyview_server.store.durable_files import sync_directory
from manyview_server.store.embeddings.array_file import TEMPORARY_SUFFIX
from manyview_server.store.embeddings.cache import remove, tables_below
from manyview_server.store.idempotency_log import IdempotencyLog
from manyview_server.store.images.datasets import DatasetStore
from manyview_server.store.images.group_limit import ANY_GROUP, GroupLimit
from manyview_server.store.images.ingest import Ingest
from manyview_server.store.images.shard_writers import ShardWriters
from manyview_server.store.images.shards import Position, recover, shard_path
from manyview_server.store.images.uploads import UploadStore
from manyview_server.store.jobs.checkpoint_store import CheckpointStore
from manyview_server.store.jobs.events import EventLog
from manyview_server.store.jobs.jobs import JobStore
from manyview_server.store.lock import DataLock
from manyview_server.store.records import Progress
from manyview_server.store.startup.generation import Generation, Mark, read_mark, read_mark_without_log
from manyview_server.store.startup.set_aside import NAME as SET_ASIDE
from manyview_server.store.startup.set_aside import SetAside
from manyview_server.store.startup.survey import Known, Survey, as_text, compare, read_known
from manyview_server.store.unusable import StoreMismatched
from manyview_server.system.disk_space import reserve_bytes as reserve_bytes_of

log = logging.getLogger(__name__)


class Store:
    """An open data directory."""

    def __init__(self, lock: DataLock, reserve_bytes: int, clock: Callable[[], float]) -> None:
        data_dir = lock.data_dir
        self._data_dir = data_dir
        self._lock = lock
        self._clock = clock
        self._database_path = data_dir / "manyview.sqlite"
        self._database = Database(self._database_path, Ballast(data_dir / "BALLAST", reserve_bytes))
        self._write_ahead_log = data_dir / "manyview.sqlite-wal"
        self._generation = Generation(self._database, data_dir / "GENERATION", self._write_ahead_log)
        self._survey = Survey()
        self._writers = ShardWriters(self.datasets_dir)
        self._deletions = Deletions(self._database, data_dir)
        self.events = EventLog(self._database, clock=clock)
        self.datasets = DatasetStore(
            self._database, self.datasets_dir, self._writers, self._deletions, clock, embeddings_dir=self.embeddings_dir
        )
        self.uploads = UploadStore(self._database, Ingest(self._database, self._writers, data_dir, reserve_bytes))
        progress: dict[str, Progress] = {}
        self.checkpoints = CheckpointStore(self._database, self.events, self.jobs_dir, self._deletions, progress, clock)
        self.jobs = JobStore(
            self._database,
            self.events,
            self.jobs_dir,
            self._deletions,
            self.checkpoints,
            progress,
            clock,
            embeddings_dir=self.embeddings_dir,
        )
        self.idempotency_log = IdempotencyLog(self._database, clock)

    @classmethod
    def open(
        cls,
        data_dir: Path,
        *,
        lock: DataLock | None = None,
        reserve_bytes: int | None = None,
        limit: GroupLimit = ANY_GROUP,
        accept_mismatch: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> Store:
        """Open or create a data directory, and recover it after a crash. Of shards, only the ends are read.

        Args:
            lock: the directory's lock, if the caller holds it. `close` releases it, and so does an error of this call.
            reserve_bytes: how many bytes of the disk uploads leave free.
            limit: the most that a group of batches can hold.
            accept_mismatch: open a directory whose database does not match its data, and move aside what the database
                does not know.

        Raises:
            StoreUnusable: StoreLocked, StoreTooNew, StoreCorrupt or StoreMismatched.
        """
        data_dir = data_dir.resolve()
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if lock is not None and lock.data_dir != data_dir:
            lock.release()
            lock = None
        lock = lock or DataLock.take(data_dir)
        try:
            if reserve_bytes is None:
                reserve_bytes = reserve_bytes_of(data_dir)
            store = cls(lock, reserve_bytes, clock)
            store._start(limit, accept_mismatch)
        except BaseException:
            lock.release()
            raise
        return store

    @property
    def datasets_dir(self) -> Path:
        """The parent of the directories of the data sets, which their uids name."""
        return self._data_dir / "datasets"

    @property
    def jobs_dir(self) -> Path:
        """The parent of the directories of the jobs, which their uids name."""
        return self._data_dir / "jobs"

    @property
    def embeddings_dir(self) -> Path:
        """The parent of the directories of tables of embeddings, which the uids of the data sets name."""
        return self._data_dir / "embeddings"

    @property
    def weights_dir(self) -> Path:
        """The directory of the operator's own weights for plain backbones."""
        return self._data_dir / "weights"

    async def close(self) -> None:
        """Make all waiting data durable, close the database, and release the directory."""
        await self.uploads.close()
        await self.events.close()
        await self._database.call(self._writers.close)
        await self._database.call(self._generation.close)
        self._database.close()
        self._lock.release()

    def _start(self, limit: GroupLimit, accept_mismatch: bool) -> None:
        for directory in (self.datasets_dir, self.jobs_dir, self.embeddings_dir, self.weights_dir):
            directory.mkdir(mode=0o700, exist_ok=True)
        mark = read_mark(self._data_dir / "GENERATION")
        aside = SetAside(self._data_dir, self._clock())
        if self._is_behind_its_log(mark):
            problem = "manyview.sqlite is an older copy, or of another store, and its log manyview.sqlite-wal is newer"
            self._refuse([problem], accept_mismatch)
            aside.move(self._write_ahead_log)
        if _has_bytes(self._database_path):
            self._database.open(lambda connection: self._compare(read_known(connection), mark, accept_mismatch))
        else:
            # Look before SQLite opens the database: it would create it, and remove the log of an empty one.
            self._compare(Known(), mark, accept_mismatch)
            if _has_bytes(self._write_ahead_log):
                aside.move(self._write_ahead_log)
            self._database.open()
        failpoints.reach("store.start", "opened")
        try:
            sync_directory(self._data_dir)
            self._set_aside(aside)
            failpoints.reach("store.start", "set_aside")
            self._database.run(self._deletions.sweep_at_start)
            failpoints.reach("store.start", "swept")
            self._database.run(lambda: self._database.transact(self._recover_shards))
            failpoints.reach("store.start", "recovered")
            self._database.run(lambda: self._database.transact(self._remove_orphaned_embeddings))
            failpoints.reach("store.start", "before_generation")
            self._database.run(lambda: self._generation.start(mark.generation if mark else 0, limit))
            failpoints.reach("store.start", "done")
        except BaseException:
            self._generation.close()
            self._database.close()
            raise

    def _compare(self, known: Known, mark: Mark | None, accept_mismatch: bool) -> None:
        """Compare the directory with the database. Raises StoreMismatched if the database cannot belong to it."""
        survey = compare(self._data_dir, known, mark)
        if not _has_bytes(self._database_path) and _has_bytes(self._write_ahead_log):
            survey.problems.append("manyview.sqlite is missing or empty, but its log manyview.sqlite-wal exists")
        if survey.problems:
            self._refuse(survey.problems, accept_mismatch)
        elif accept_mismatch:
            log.warning("accept_mismatched_database is set, but the database matches the data: remove the setting")
        if known.mark is not None and mark is None and known.mark.generation:
            log.warning("the file GENERATION is missing: the server cannot check that the database is the newest one")
        self._survey = survey

    def _is_behind_its_log(self, mark: Mark | None) -> bool:
        """Is the database's file too old for the log beside it? SQLite would mix the two when it opens them."""
        if mark is None or not _has_bytes(self._database_path) or not _has_bytes(self._write_ahead_log):
            return False
        alone = read_mark_without_log(self._database_path)
        return alone is not None and (alone.store != mark.store or alone.generation < mark.generation - 1)

    def _refuse(self, problems: list[str], accept_mismatch: bool) -> None:
        """Raise StoreMismatched, or log the problems if they are accepted."""
        if accept_mismatch:
            log.warning(
                "starting on a database that does not match the data, as accept_mismatched_database allows: %s",
                as_text(problems),
            )
            return
        raise StoreMismatched(
            f"the database manyview.sqlite does not match the data in {self._data_dir}: {as_text(problems)}. Nothing "
            "was changed. Restore the database that belongs to this data, or the whole directory from one backup. To "
            "start with the database as it is, give the flag --accept-mismatched-database once: what the database "
            f"does not know is then moved to {self._data_dir / SET_ASIDE} and is no longer part of the store"
        )

    def _set_aside(self, aside: SetAside) -> None:
        """Move away what the database does not know, except the ends of shards that a crash left.

        Beside a database that does not match, such an end may have been acknowledged, so it is moved too. Only empty
        directories are deleted.
        """
        for path in (*self._survey.unknown, *self._survey.unlisted):
            aside.move(path)
        for tail in self._survey.tails:
            if self._survey.problems or not tail.by_crash:
                aside.cut(tail.path, tail.start)
        for directory in self._survey.empty:
            for folder, _, _ in os.walk(directory, topdown=False):
                os.rmdir(folder)

    def _remove_orphaned_embeddings(self, connection: sqlite3.Connection) -> None:
        """Remove the tables whose data set or job is gone, and the unfinished files of other tables."""
        datasets = {uid for (uid,) in connection.execute("SELECT uid FROM dataset")}
        owners = {"backbone", *(uid for (uid,) in connection.execute("SELECT uid FROM job"))}
        for table, owner in tables_below(self.embeddings_dir):
            if table.parent.name not in datasets or owner not in owners:
                remove(table)
            else:
                for unfinished in table.glob(f"*{TEMPORARY_SUFFIX}"):
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


def _has_bytes(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0
