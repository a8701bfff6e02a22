"""The start of a store: open its database, move aside what the database does not know, and recover from a crash."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path

from manyview_server import failpoints
from manyview_server.store.array_file import TEMPORARY_SUFFIX
from manyview_server.store.database.database import Database
from manyview_server.store.deletions import Deletions
from manyview_server.store.durable_files import sync_directory
from manyview_server.store.embeddings.cache import remove, tables_below
from manyview_server.store.images import shard_index
from manyview_server.store.images.group_limit import GroupLimit
from manyview_server.store.images.shards import Position, recover, shard_path
from manyview_server.store.startup import abandoned_datasets
from manyview_server.store.startup.generation import Generation, Mark, read_mark, read_mark_without_log
from manyview_server.store.startup.set_aside import NAME as SET_ASIDE
from manyview_server.store.startup.set_aside import SetAside
from manyview_server.store.startup.survey import Known, Survey, as_text, compare, read_known
from manyview_server.store.unusable import StoreMismatched

log = logging.getLogger(__name__)

DATABASE = "manyview.sqlite"
WRITE_AHEAD_LOG = f"{DATABASE}-wal"
GENERATION = "GENERATION"


class StoreStart:
    """One start of a store, at the time `now`. `run` it once."""

    def __init__(
        self, data_dir: Path, database: Database, deletions: Deletions, generation: Generation, now: float
    ) -> None:
        self._data_dir = data_dir
        self._database = database
        self._deletions = deletions
        self._generation = generation
        self._now = now
        self._database_path = data_dir / DATABASE
        self._write_ahead_log = data_dir / WRITE_AHEAD_LOG
        self._survey = Survey()

    def run(self, limit: GroupLimit, accept_mismatch: bool) -> None:
        """Open the database and recover the directory. See `Store.open`.

        Raises StoreUnusable. Nothing is open then.
        """
        for name in ("datasets", "jobs", "embeddings", "weights"):
            (self._data_dir / name).mkdir(mode=0o700, exist_ok=True)
        mark = read_mark(self._data_dir / GENERATION)
        aside = SetAside(self._data_dir, self._now)
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
            self._database.run(lambda: self._database.transact(self._remove_abandoned_datasets, vital=True))
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

    def _remove_abandoned_datasets(self, connection: sqlite3.Connection) -> None:
        abandoned_datasets.remove(connection, self._deletions, self._data_dir, self._now)

    def _remove_orphaned_embeddings(self, connection: sqlite3.Connection) -> None:
        """Remove the tables whose data set or job is gone, and the unfinished files of other tables."""
        datasets = {uid for (uid,) in connection.execute("SELECT uid FROM dataset")}
        owners = {"backbone", *(uid for (uid,) in connection.execute("SELECT uid FROM job"))}
        for table, owner in tables_below(self._data_dir / "embeddings"):
            if table.parent.name not in datasets or owner not in owners:
                remove(table)
            else:
                for unfinished in table.glob(f"*{TEMPORARY_SUFFIX}"):
                    unfinished.unlink(missing_ok=True)

    def _recover_shards(self, connection: sqlite3.Connection) -> None:
        for pk, uid, shard, end in connection.execute("SELECT pk, uid, shard, shard_bytes FROM dataset").fetchall():
            committed, directory = Position(shard, end), self._data_dir / "datasets" / uid
            resumed = recover(directory, committed)
            # An older database writes other images into shards that were closed before.
            shard_index.remove_from(directory, resumed.shard)
            if resumed != committed:
                log.error("shard %d of data set %s is shorter than what was committed: images are lost", shard, uid)
                _mark_lost(connection, pk, shard, shard_path(directory, shard))
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
