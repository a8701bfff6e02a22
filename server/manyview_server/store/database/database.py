"""SQLite on one thread: one process, one connection, WAL, `synchronous=FULL`.

FULL, because an acknowledgement depends on the commit: NORMAL survives a kill but loses commits to a power cut. One
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

# sysexits.h EX_IOERR: after a failed sync nothing in memory can be trusted to be on disk, and a second try would lie.
EXIT_SYNC_FAILED = 74
SYNC_ERRORS = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC, sqlite3.SQLITE_IOERR_TRUNCATE})
# A disk that broke is remounted read-only, by ext4 for one.
DISK_BROKEN_ERRNOS = frozenset({errno.EROFS, errno.EIO, errno.EACCES})


def die_unsynced(what: str, error: Exception) -> NoReturn:
    """End the process at once: the disk refused a sync, so recovery must start from what it really holds."""
    log.critical("sync failed, exiting: %s", what, exc_info=error)
    logging.shutdown()
    os._exit(EXIT_SYNC_FAILED)


def disk_full(error: Exception | None = None) -> ResourceExhausted:
    """The error for a full disk: room may come back, so it says when to try again."""
    if error is not None:
        log.error("disk full", exc_info=error)
    return ResourceExhausted("DISK_FULL", "the server's disk is full", retry_after_s=30.0)


def translated(error: sqlite3.Error) -> ServiceError | None:
    """What a caller may see of a database error; None where it is a bug of ours."""
    # The module raises a few errors of its own, without a code.
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


def translated_file(error: OSError) -> ServiceError | None:
    """The same of a file's error."""
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
    """The connection and its thread. Functions given to `read` and `write` run there, one at a time, in order."""

    def __init__(self, path: Path, ballast: Ballast | None = None) -> None:
        self._path = path
        self._ballast = ballast
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="database")
        self._connection: sqlite3.Connection | None = None
        self.on_commit: Callable[[], None] | None = None
        """A function that the database thread calls after each commit. It may use `transact`."""

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
        """`fn()` on the database thread; waits for it. For start-up, before there is an event loop."""
        return self._executor.submit(fn).result()

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """The answer of `fn(connection)`. Keep it short: commits wait behind it."""
        return await self.call(lambda: self._guarded(fn))

    async def write(self, fn: Callable[[sqlite3.Connection], T], *, vital: bool = False) -> T:
        """`fn(connection)` within one transaction: durable when this returns, without effect when it raises.

        What is `vital` may use the ballast on a full disk; `fn` then runs a second time, and is to change nothing but
        rows.
        """
        return await self.call(lambda: self.transact(fn, vital=vital))

    def transact(self, fn: Callable[[sqlite3.Connection], T], *, vital: bool = False) -> T:
        """What `write` does, for callers that are on the database thread already or have no event loop yet."""
        if vital and self._ballast is not None:
            ballast = self._ballast
            result = self._guarded(lambda connection: _with_ballast(connection, fn, ballast))
        else:
            result = self._guarded(lambda connection: _in_transaction(connection, fn))
        if self.on_commit is not None:
            self.on_commit()
        return result

    def empty_log(self) -> None:
        """Copy all of SQLite's log into the database's file and start the log again. Call it on the database thread."""
        self._guarded(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())

    def close(self) -> None:
        """Finish what is queued, then close."""
        self._executor.submit(self._close).result()
        self._executor.shutdown()

    async def call(self, fn: Callable[[], T]) -> T:
        """`fn()` on the database thread, for what is more than one transaction.

        It runs even when the caller is cancelled while it waits: what was asked for is never half done.
        """
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._executor, fn))

    def _guarded(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        assert self._connection is not None
        try:
            return fn(self._connection)
        except sqlite3.Error as error:
            if (visible := translated(error)) is not None:
                raise visible from error
            raise
        except OSError as error:
            if (visible := translated_file(error)) is not None:
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
            raise StoreCorrupt(f"{self._path} does not read: {error}") from error
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
        # SQLite itself rolls back after some errors, a full disk for one.
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
    # The index of image ids is hit at random: 64 MiB hold that of two million images.
    connection.execute("PRAGMA cache_size=-65536")


def _refuse_newer(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StoreTooNew(f"the database has version {version}, this release knows up to {len(MIGRATIONS)}")


def _migrate(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        # executescript would commit each statement by itself: one transaction makes a kill in between harmless.
        connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version={number}; COMMIT;")
