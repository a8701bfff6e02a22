"""A counter in the database and in a file beside it. By it, a start notices a database that is not the newest one.

The database's counter is raised first, and the file `GENERATION` follows. So the file is never ahead of the database
that belongs to it, whenever the server is killed, and a file that is ahead proves that the database is an older copy.
The file also names the store, so that a database from another data directory is noticed.

The counter is raised at each start, and each time that SQLite has emptied its log into the database and starts the log
again. The first commit of a new log is followed by a new generation before that commit is acknowledged. So a database
whose log was lost is behind the file, unless nothing was lost with the log.

The log is emptied before each generation. So the database's file alone, without its log, is at most one generation
behind. If it is further behind, it is an older copy beside the log of the newest database, and SQLite would mix the
two.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from manyview_server.errors import ServiceError
from manyview_server.store.database.database import Database
from manyview_server.store.durable_files import sync_directory
from manyview_server.store.images.group_limit import GroupLimit

log = logging.getLogger(__name__)

# SQLite changes these bytes of its log's header each time that it starts the log from the beginning.
SALTS = slice(16, 24)


@dataclass(frozen=True, slots=True)
class Mark:
    """A generation of the store that is named `store`."""

    store: str
    generation: int


def read_mark(path: Path) -> Mark | None:
    """Return the mark in the file, or None if the file is missing or damaged."""
    try:
        values = json.loads(path.read_bytes())
        return Mark(str(values["store"]), int(values["generation"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        log.warning(
            "%s is damaged and is written again; this start cannot check by it whether the database is the newest one",
            path,
        )
        return None


def read_mark_without_log(database: Path) -> Mark | None:
    """Return the mark in the database's file without its log, or None if it has no mark or cannot be read alone.

    Call it while the database is not open. A crash may have left part of the log in the file, which then can be read
    only together with the log.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database))}?immutable=1", uri=True)) as connection:
            return Mark(*connection.execute("SELECT uid, generation FROM store").fetchone())
    except (sqlite3.Error, TypeError):
        return None


class Generation:
    """The counter of an open database. Use it on the database thread."""

    def __init__(self, database: Database, path: Path, write_ahead_log: Path) -> None:
        self._database = database
        self._path = path
        self._write_ahead_log = write_ahead_log
        self._fd = -1
        self._salts = b""

    def start(self, at_least: int, limit: GroupLimit) -> None:
        """Raise the counter above `at_least` and empty the log; from now on, raise it whenever the log starts again.

        `limit` is stored with the counter, after recovery, because what a run leaves is judged by that run's own limit.
        A full disk does not stop the start: the counter then stays as it is.
        """
        try:
            mark = self._count(at_least, limit)
            # The counter of an accepted database may have been far behind: the database's file must have the new one
            # before the file beside it does.
            self._database.empty_log()
            self._save(mark)
        except (ServiceError, OSError, sqlite3.Error):
            log.warning(
                "the generation could not be raised: a later start may not notice an older database", exc_info=True
            )
        self._fd = os.open(self._write_ahead_log, os.O_RDONLY | os.O_CLOEXEC)
        self._salts = self._read_salts()
        self._database.on_commit = self._follow

    def close(self) -> None:
        """Stop following the log, and close its file."""
        self._database.on_commit = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _follow(self) -> None:
        """Raise the counter if SQLite has started its log again. This is called after each commit."""
        try:
            salts = self._read_salts()
            if salts == self._salts:
                return
            # A large commit lets SQLite empty the log, so that the counter's own commit may start it once more. That
            # needs no further generation: the counter is in the newest log.
            self._database.on_commit = None
            try:
                self._save(self._count(0))
            finally:
                self._database.on_commit = self._follow
            self._salts = self._read_salts()
        except (ServiceError, OSError, sqlite3.Error):
            log.warning("the generation could not be raised; the next commit tries again", exc_info=True)
            self._salts = b""

    def _count(self, at_least: int, limit: GroupLimit | None = None) -> Mark:
        """Raise the counter in the database, and return it."""

        def run(connection: sqlite3.Connection) -> Mark:
            if limit is not None:
                sql = "UPDATE store SET max_group_images = ?, max_group_bytes = ?"
                connection.execute(sql, (limit.images, limit.num_bytes))
            connection.execute("UPDATE store SET generation = max(generation, ?) + 1", (at_least,))
            return Mark(*connection.execute("SELECT uid, generation FROM store").fetchone())

        return self._database.transact(run, vital=True)

    def _save(self, mark: Mark) -> None:
        """Write the counter to the file beside the database."""
        try:
            _write(self._path, mark)
        except OSError:
            # The file is then behind the database, which every start accepts.
            log.warning("%s could not be written", self._path, exc_info=True)

    def _read_salts(self) -> bytes:
        return os.pread(self._fd, SALTS.stop, 0)[SALTS]


def _write(path: Path, mark: Mark) -> None:
    text = json.dumps({"store": mark.store, "generation": mark.generation}) + "\n"
    temporary = path.with_name(f"{path.name}.new")
    try:
        fd = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, text.encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(path.parent)
