from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from manyview_server.errors import NotFound, ResourceExhausted, ServiceError, Unavailable
from manyview_server.store.database import database as database_module
from manyview_server.store.database.database import Database, service_error_of
from manyview_server.store.database.schema import MIGRATIONS
from manyview_server.store.unusable import StoreCorrupt


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "db.sqlite")
    opened.open()
    yield opened
    opened.close()


def add(connection: sqlite3.Connection, request_id: str) -> None:
    connection.execute("INSERT INTO request VALUES (?, 'm', x'00', x'00', 0)", (request_id,))


def count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM request").fetchone()[0])


async def test_commits_survive_a_power_cut_as_far_as_the_settings_go(database: Database) -> None:
    def pragma(connection: sqlite3.Connection) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys", "locking_mode")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await database.read(pragma) == ["wal", 2, 1, "exclusive"]


async def test_a_write_that_raises_has_no_effect(database: Database) -> None:
    def refuse(connection: sqlite3.Connection) -> None:
        add(connection, "a")
        raise NotFound("NONE", "none")

    with pytest.raises(NotFound):
        await database.write(refuse)
    assert await database.read(count) == 0
    await database.write(lambda c: add(c, "b"))
    assert await database.read(count) == 1


async def test_everything_runs_on_one_thread_in_order(database: Database) -> None:
    seen: list[tuple[int, int]] = []

    def note(number: int, _: sqlite3.Connection) -> None:
        seen.append((number, threading.get_ident()))

    await asyncio.gather(*(database.write(partial(note, n)) for n in range(20)))
    assert [n for n, _ in seen] == list(range(20))
    assert len({thread for _, thread in seen}) == 1
    assert seen[0][1] != threading.get_ident()


async def test_a_write_goes_on_when_its_caller_is_gone(database: Database) -> None:
    blocked = threading.Event()
    waiting = asyncio.create_task(database.read(lambda _: blocked.wait()))
    writing = asyncio.create_task(database.write(lambda c: add(c, "a")))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    blocked.set()
    assert await waiting
    assert await database.read(count) == 1


def failure(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "visible", "reason"),
    [
        (sqlite3.SQLITE_FULL, ResourceExhausted, "DISK_FULL"),
        (sqlite3.SQLITE_BUSY, Unavailable, "STORE_UNAVAILABLE"),
        (sqlite3.SQLITE_READONLY, Unavailable, "STORE_UNAVAILABLE"),
        (sqlite3.SQLITE_IOERR_WRITE, Unavailable, "STORE_UNAVAILABLE"),
    ],
)
def test_the_disks_troubles_are_told_to_the_caller(code: int, visible: type[ServiceError], reason: str) -> None:
    error = service_error_of(failure(code))
    assert isinstance(error, visible)
    assert error.reason == reason
    assert error.retry_after_s > 0


def test_a_failed_sync_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended(Exception):
        pass

    def end(status: int) -> None:
        raise Ended(status)

    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(Ended, match="74"):
        service_error_of(failure(sqlite3.SQLITE_IOERR_FSYNC))


async def test_a_wrong_statement_is_a_bug_and_stays_one(database: Database) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await database.read(lambda c: c.execute("SELECT * FROM unknown_table"))


async def test_a_full_database_is_told_and_recovers(database: Database) -> None:
    def shrink(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")

    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO request VALUES ('a', 'm', x'00', zeroblob(100000), 0)")

    await database.read(shrink)
    with pytest.raises(ResourceExhausted, match="disk is full"):
        await database.write(fill)
    await database.read(lambda c: c.execute("PRAGMA max_page_count=1000000"))
    await database.write(fill)
    assert await database.read(count) == 1


def tables(path: Path) -> tuple[int, set[str]]:
    connection = sqlite3.connect(path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    return version, names


def test_a_migration_that_fails_half_way_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "db.sqlite"
    first = Database(path)
    first.open()
    first.close()
    with monkeypatch.context() as patch:
        patch.setattr(
            database_module, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE extra (x); INSERT INTO unknown_table VALUES (1)")
        )
        with pytest.raises(StoreCorrupt, match="unknown_table"):
            Database(path).open()
    version, names = tables(path)
    assert version == len(MIGRATIONS)
    assert "extra" not in names
    monkeypatch.setattr(database_module, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE extra (x)"))
    second = Database(path)
    second.open()
    second.close()
    version, names = tables(path)
    assert version == len(MIGRATIONS) + 1
    assert {"extra", "image"} <= names
