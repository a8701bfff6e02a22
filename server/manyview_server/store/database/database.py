"""SQLite on one thread, with one connection, a write-ahead log (WAL) and `synchronous=FULL`.

An acknowledgement depends on the commit, and NORMAL survives a kill but loses commits to a power cut. There is one
connection in exclusive mode, because SQLite before 3.51.3 can corrupt a WAL that two connections share.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, TypeVar

from manyview_server.errors import ResourceExhausted, ServiceError, Unavailable
from manyview_server.store.database.ballast import Ballast
from manyview_server.store.database.schema import MIGRATIONS
from manyview_server.store.durable_files import SyncFailed
from manyview_server.store.unusable import StoreCorrupt, StoreTooNew
from manyview_server.system import open_files
from manyview_server.system.disk_space import DISK_FULL_ERRNOS

T = TypeVar("T")

log = logging.getLogger(__name__)

# EX_IOERR of sysexits.h. After a failed sync it is unknown what the disk holds, and a second sync would report success.
EXIT_SYNC_FAILED = 74
SYNC_ERRORS = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC, sqlite3.SQLITE_IOERR_TRUNCATE})
# Some file systems, such as ext4, turn a broken disk read-only.
DISK_BROKEN_ERRNOS = frozenset({errno.EROFS, errno.EIO, errno.EACCES})


def die_unsynced(what: str, error: Exception) -> NoReturn:
    """End the process at once, because the disk refused a sync. Recovery must start from what the disk really holds."""
    log.critical("sync failed, exiting: %s", what, exc_info=error)
    logging.shutdown()
    os._exit(EXIT_SYNC_FAILED)


def disk_full(error: Exception | None = None) -> ResourceExhausted:
    """Return the error for a full disk. It says when to try again, because room may come back."""
    if error is not None:
        log.error("disk full", exc_info=error)
    return ResourceExhausted("DISK_FULL", "the server's disk is full", retry_after_s=30.0)


def service_error_of(error: sqlite3.Error) -> ServiceError | None:
    """Return the error that a caller gets for a database error, or None if the error is a fault of the server.

    After a failed sync it ends the process.
    """
    # A few errors of the sqlite3 module itself have no code.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code in SYNC_ERRORS:
        die_unsynced("database", error)
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL:
        return disk_full(error)
    if primary in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and not open_files.any_left():
        return open_files.too_many(error)
    if primary in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY):
        return _unavailable(error)
    return None


def service_error_of_file(error: OSError) -> ServiceError | None:
    """Return the error that a caller gets for the error of a file. See `service_error_of`."""
    if isinstance(error, SyncFailed):
        die_unsynced("file", error)
    if error.errno in DISK_FULL_ERRNOS:
        return disk_full(error)
    if open_files.are_lacking(error):
        return open_files.too_many(error)
    return _unavailable(error) if error.errno in DISK_BROKEN_ERRNOS else None


def _unavailable(error: Exception) -> Unavailable:
    log.error("the store cannot be used", exc_info=error)
    return Unavailable("STORE_UNAVAILABLE", "the server's store cannot be used now", retry_after_s=5.0)


class Database:
    """The connection and its thread.

    The functions given to `read` and `write` run there, one at a time and in order.
    """

    def __init__(self, path: Path, ballast: Ballast | None = None) -> None:
        self._path = path
        self._ballast = ballast
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="database")
        self._connection: sqlite3.Connection | None = None
        self.on_commit: Callable[[], None] | None = None
        """A function that the database thread calls after each commit. It may use `transact`."""
        self.num_commits = 0
        """While it stays the same, what was read stays true. It is raised before the writer's call returns."""

    def open(self, check: Callable[[sqlite3.Connection], None] = lambda _: None) -> None:
        """Open or create the file, let `check` look at it, and bring its tables up to date. Raises StoreUnusable.

        If `check` raises, nothing was changed, except that SQLite may have emptied its log into the file.
        """
        try:
            self.run(lambda: self._open(check))
        except BaseException:
            self.close()
            raise

    def run(self, fn: Callable[[], T]) -> T:
        """Run `fn()` on the database thread, and wait for it. Use it at start, before there is an event loop."""
        return self._executor.submit(fn).result()

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Return `fn(connection)`. It must be short, because commits wait for it."""
        return await self.call(lambda: self._guarded(fn))

    async def write(self, fn: Callable[[sqlite3.Connection], T], *, vital: bool = False) -> T:
        """Return `fn(connection)`, run in one transaction. It is durable on return, and has no effect if it raises.

        A `vital` write may use the ballast on a full disk. `fn` then runs a second time, so it must change nothing but
        rows.
        """
        return await self.call(lambda: self.transact(fn, vital=vital))

    def transact(self, fn: Callable[[sqlite3.Connection], T], *, vital: bool = False) -> T:
        """Do what `write` does. Call it on the database thread."""
        if vital and self._ballast is not None:
            ballast = self._ballast
            result = self._guarded(lambda connection: _with_ballast(connection, fn, ballast))
        else:
            result = self._guarded(lambda connection: _in_transaction(connection, fn))
        self.num_commits += 1
        if self.on_commit is not None:
            self.on_commit()
        return result

    def empty_log(self) -> None:
        """Copy all of SQLite's log into the database's file and start the log again. Call it on the database thread."""
        self._guarded(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())

    def close(self) -> None:
        """Finish the queued work, then close."""
        self._executor.submit(self._close).result()
        self._executor.shutdown()

    async def call(self, fn: Callable[[], T]) -> T:
        """Run `fn()` on the database thread. Use it for work that is more than one transaction.

        It also runs if the caller is cancelled while it waits, so that no work is left half done.
        """
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._executor, fn))

    def _guarded(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        assert self._connection is not None
        try:
            return fn(self._connection)
        except sqlite3.Error as error:
            if (visible := service_error_of(error)) is not None:
                raise visible from error
            raise
        except OSError as error:
            if (visible := service_error_of_file(error)) is not None:
                raise visible from error
            raise

    def _open(self, check: Callable[[sqlite3.Connection], None]) -> None:
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self._connection = sqlite3.connect(self._path, isolation_level=None, cached_statements=256)
        try:
            _configure(self._connection)
            _refuse_newer(self._connection)
            check(self._connection)
            _migrate(self._connection)
        except sqlite3.DatabaseError as error:
            raise StoreCorrupt(f"{self._path} cannot be read: {error}") from error
        if self._ballast is not None:
            self._ballast.take()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _in_transaction(connection: sqlite3.Connection, fn: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = fn(connection)
        connection.execute("COMMIT")
    except BaseException:
        # SQLite itself rolls back after some errors, such as a full disk.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


def _with_ballast(connection: sqlite3.Connection, fn: Callable[[sqlite3.Connection], T], ballast: Ballast) -> T:
    try:
        result = _in_transaction(connection, fn)
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_FULL or not ballast.drop():
            raise
        return _in_transaction(connection, fn)
    ballast.take()
    return result


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA mmap_size=0")
    # The index of image ids is read at random. 64 MiB hold the index of two million images.
    connection.execute("PRAGMA cache_size=-65536")


def _refuse_newer(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StoreTooNew(
            f"the database has version {version}, and this release knows versions up to {len(MIGRATIONS)}"
        )


def _migrate(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        # By itself, executescript commits each statement. One transaction makes a kill in between harmless.
        connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version={number}; COMMIT;")
