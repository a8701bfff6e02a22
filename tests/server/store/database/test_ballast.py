from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from manyview_server.errors import ResourceExhausted
from manyview_server.store.database.ballast import Ballast
from manyview_server.store.database.database import Database
from manyview_server.store.store import Store


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_the_room_is_really_held_and_given_up(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "BALLAST", 1 << 20)
    ballast.take()
    assert ballast.held
    assert allocated(tmp_path / "BALLAST") >= 1 << 20
    assert ballast.drop()
    assert not ballast.drop()
    assert not os.listdir(tmp_path)
    ballast.take()
    # Another server, on the same directory.
    again = Ballast(tmp_path / "BALLAST", 1 << 20)
    again.take()
    assert again.held


def test_no_room_is_taken_that_uploads_are_to_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Disk:
        f_bavail, f_frsize = (2 << 20) - 1, 1

    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda _: Disk)
        ballast = Ballast(tmp_path / "BALLAST", 1 << 20)
        ballast.take()
        assert not ballast.held
        Disk.f_bavail += 1
        ballast.take()
        assert ballast.held


def test_a_large_disk_gives_16_mib_and_no_reserve_none(tmp_path: Path) -> None:
    assert Ballast(tmp_path / "BALLAST", 512 << 20).num_bytes == 16 << 20
    none = Ballast(tmp_path / "BALLAST", 0)
    none.take()
    assert not none.held


async def test_on_a_full_disk_what_is_vital_is_written_in_the_ballasts_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database may have no page more than it has, until the ballast is gone."""
    ballast = Ballast(tmp_path / "BALLAST", 1 << 20)
    database = Database(tmp_path / "db.sqlite", ballast)
    database.open()

    def limit(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")

    def note(connection: sqlite3.Connection) -> None:
        if not ballast.held:
            connection.execute("PRAGMA max_page_count=1000000")
        connection.execute("INSERT INTO request VALUES (hex(randomblob(8)), 'm', x'00', zeroblob(100000), 0)")

    await database.read(limit)
    with pytest.raises(ResourceExhausted, match="disk is full"):
        await database.write(note)
    assert ballast.held, "it is not for everybody"
    await database.write(note, vital=True)
    assert not ballast.held
    assert await database.read(lambda c: c.execute("SELECT count(*) FROM request").fetchone()) == (1,)
    await database.write(note, vital=True)
    assert ballast.held, "taken again as soon as there is room"
    database.close()


async def test_a_store_holds_it_from_its_first_start_on(tmp_path: Path) -> None:
    store = Store.open(tmp_path, reserve_bytes=1 << 20)
    assert allocated(tmp_path / "BALLAST") >= 1 << 20
    await store.close()
