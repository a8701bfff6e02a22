from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manyview_server.errors import ResourceExhausted
from manyview_server.store.images.group_limit import GroupLimit
from manyview_server.store.records import CheckedImage
from manyview_server.store.startup import generation as generation_module
from manyview_server.store.startup.generation import Generation, Mark, read_mark, read_mark_without_log
from manyview_server.store.store import Store
from manyview_server.store.unusable import StoreMismatched

MakeImage = Callable[..., CheckedImage]

DATABASE = "manyview.sqlite"


async def start_and_stop(data_dir: Path) -> Mark:
    await Store.open(data_dir, reserve_bytes=0).close()
    mark = read_mark(data_dir / "GENERATION")
    assert mark is not None
    return mark


async def test_each_start_is_a_generation_of_the_same_store(tmp_path: Path) -> None:
    first = await start_and_stop(tmp_path)
    second = await start_and_stop(tmp_path)
    assert second == Mark(first.store, first.generation + 1)
    assert len(first.store) == 32


async def test_a_database_of_one_start_ago_is_refused(tmp_path: Path) -> None:
    await start_and_stop(tmp_path)
    older = (tmp_path / DATABASE).read_bytes()
    await start_and_stop(tmp_path)
    (tmp_path / DATABASE).write_bytes(older)
    with pytest.raises(StoreMismatched, match="generation is 1, and the directory has seen generation 2"):
        Store.open(tmp_path)


async def test_a_database_of_another_directory_is_refused(tmp_path: Path) -> None:
    for _ in range(2):
        await start_and_stop(tmp_path / "other")
    await start_and_stop(tmp_path / "mine")
    shutil.copy(tmp_path / "other" / DATABASE, tmp_path / "mine" / DATABASE)
    with pytest.raises(StoreMismatched, match="belongs to another store"):
        Store.open(tmp_path / "mine")


async def test_a_directory_that_was_restored_as_a_whole_starts(tmp_path: Path) -> None:
    await start_and_stop(tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "backup")
    await start_and_stop(tmp_path / "data")
    assert (await start_and_stop(tmp_path / "backup")).generation == 2


@pytest.mark.parametrize("text", [None, "", "{", '{"store": 1}', "[]"])
async def test_a_file_that_is_missing_or_damaged_proves_nothing_and_is_written_again(
    tmp_path: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    mark = await start_and_stop(tmp_path)
    (tmp_path / "GENERATION").unlink()
    if text is not None:
        (tmp_path / "GENERATION").write_text(text)
    assert await start_and_stop(tmp_path) == Mark(mark.store, mark.generation + 1)
    assert "GENERATION is missing" in caplog.text or "is damaged" in caplog.text


async def test_the_file_is_never_ahead_of_the_database_that_belongs_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that dies between the commit and the file leaves the file behind, which every later start accepts."""
    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr("manyview_server.store.startup.generation._write", lambda *_: None)
            await Store.open(tmp_path, reserve_bytes=0).close()
    assert read_mark(tmp_path / "GENERATION") is None
    assert (await start_and_stop(tmp_path)).generation == 4


async def test_a_file_that_cannot_be_written_does_not_stop_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await start_and_stop(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("manyview_server.store.startup.generation._write", full)
        await start_and_stop(tmp_path)
    assert "GENERATION could not be written" in caplog.text
    assert (await start_and_stop(tmp_path)).generation == 3


async def upload(store: Store, image: MakeImage, first: int, count: int, upload_id: str) -> None:
    session = await store.uploads.open("a", upload_id)
    for number in range(count):
        await session.append(number + 1, [image(first + number)])


async def test_a_database_whose_log_was_lost_is_refused_whenever_something_was_lost_with_it(
    tmp_path: Path, image: MakeImage
) -> None:
    """A killed server's log is lost: before SQLite has ever emptied it, and at moments after it has."""
    store = Store.open(tmp_path / "data", reserve_bytes=0)
    await store.datasets.create("a")
    log = tmp_path / "data" / f"{DATABASE}-wal"
    emptied = 0
    for number in range(14):
        before = read_mark(tmp_path / "data" / "GENERATION")
        await upload(store, image, 1000 * number, 40, f"u{number}")
        after = read_mark(tmp_path / "data" / "GENERATION")
        assert before
        assert after
        emptied += after.generation - before.generation
        killed = tmp_path / f"killed-{number}"
        shutil.copytree(tmp_path / "data", killed)
        whole = tmp_path / f"whole-{number}"
        shutil.copytree(tmp_path / "data", whole)
        (killed / log.name).unlink()
        with pytest.raises(StoreMismatched, match="seen generation"):
            Store.open(killed)
        again = Store.open(whole, reserve_bytes=0)
        assert (await again.datasets.get("a")).num_images == 40 * (number + 1)
        await again.close()
    assert emptied >= 2, "SQLite emptied its log while images came"
    await store.close()


async def test_a_commit_that_finds_the_log_begun_again_is_followed_by_a_new_generation_even_after_a_failure(
    tmp_path: Path, image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path, reserve_bytes=0)
    await store.datasets.create("a")
    generation = store._generation
    real = generation._count
    failures: list[Any] = []

    def failing(at_least: int, limit: GroupLimit | None = None) -> Mark:
        if len(failures) < 2:
            failures.append(at_least)
            raise OSError(5, "Input/output error")
        return real(at_least, limit)

    monkeypatch.setattr(generation, "_count", failing)
    generation._salts = b"another"
    before = read_mark(tmp_path / "GENERATION")
    await upload(store, image, 0, 3, "u")
    after = read_mark(tmp_path / "GENERATION")
    assert len(failures) == 2
    assert before
    assert after == Mark(before.store, before.generation + 1)
    await store.close()


async def test_the_generation_is_readable_json_that_names_the_store(tmp_path: Path) -> None:
    mark = await start_and_stop(tmp_path)
    text = (tmp_path / "GENERATION").read_text()
    assert json.loads(text) == {"store": mark.store, "generation": 1}
    assert (tmp_path / "GENERATION").stat().st_mode & 0o077 == 0


async def test_an_older_database_beside_the_newest_log_is_refused_and_the_log_is_kept(
    tmp_path: Path, image: MakeImage
) -> None:
    """SQLite would mix the two: the log says that its database is the newest one."""
    data_dir = tmp_path / "data"
    store = Store.open(data_dir, reserve_bytes=0)
    await store.datasets.create("a")
    await store.close()
    backup = (data_dir / DATABASE).read_bytes()
    for number in range(2):
        store = Store.open(data_dir, reserve_bytes=0)
        await upload(store, image, 100 * number, 3, f"u{number}")
        if number == 0:
            await store.close()
    shutil.copytree(data_dir, tmp_path / "killed")
    await store.close()
    killed = tmp_path / "killed"
    right, log = ((killed / name).read_bytes() for name in (DATABASE, f"{DATABASE}-wal"))
    (killed / DATABASE).write_bytes(backup)
    with pytest.raises(StoreMismatched, match=r"its log manyview\.sqlite-wal is newer"):
        Store.open(killed, reserve_bytes=0)
    assert (killed / f"{DATABASE}-wal").read_bytes() == log
    (killed / DATABASE).write_bytes(right)
    again = Store.open(killed, reserve_bytes=0)
    assert (await again.datasets.get("a")).num_images == 6
    await again.close()
    (killed / DATABASE).write_bytes(backup)
    (killed / f"{DATABASE}-wal").write_bytes(log)
    accepted = Store.open(killed, reserve_bytes=0, accept_mismatch=True)
    assert (await accepted.datasets.get("a")).num_images == 0
    await accepted.close()
    assert next((killed / "set-aside").rglob(f"{DATABASE}-wal")).read_bytes() == log


async def test_servers_that_are_killed_again_and_again_start_each_time(tmp_path: Path, image: MakeImage) -> None:
    """None of them closes its database: the log stays, and each next one finds it."""
    stores, data_dir = [], tmp_path / "0"
    for number in range(6):
        stores.append(Store.open(data_dir, reserve_bytes=0))
        if number == 0:
            await stores[0].datasets.create("a")
        if number % 2:
            await upload(stores[-1], image, 100 * number, 30, f"u{number}")
        shutil.copytree(data_dir, tmp_path / f"{number + 1}")
        data_dir = tmp_path / f"{number + 1}"
    last = Store.open(data_dir, reserve_bytes=0)
    assert (await last.datasets.get("a")).num_images == 90
    for store in (*stores, last):
        await store.close()


async def test_a_full_disk_does_not_stop_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await start_and_stop(tmp_path)

    def full(*_: object) -> None:
        raise ResourceExhausted("DISK_FULL", "the server's disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Generation, "_count", full)
        await start_and_stop(tmp_path)
    assert "may not notice an older database" in caplog.text
    assert (await start_and_stop(tmp_path)).generation == 2


async def test_a_log_that_cannot_be_read_fails_no_commit(
    store: Store, image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> bytes:
        raise OSError(5, "Input/output error")

    await store.datasets.create("a")
    with monkeypatch.context() as patch:
        patch.setattr(store._generation, "_read_salts", broken)
        await upload(store, image, 0, 2, "u")
    assert (await store.datasets.get("a")).num_images == 2


async def test_a_server_that_is_killed_after_an_accepted_start_comes_back_with_what_it_acknowledged(
    tmp_path: Path,
) -> None:
    data_dir = tmp_path / "data"
    await start_and_stop(data_dir)
    older = (data_dir / DATABASE).read_bytes()
    for _ in range(5):
        await start_and_stop(data_dir)
    (data_dir / DATABASE).write_bytes(older)
    store = Store.open(data_dir, reserve_bytes=0, accept_mismatch=True)
    await store.datasets.create("acknowledged")
    shutil.copytree(data_dir, tmp_path / "killed")
    await store.close()
    again = Store.open(tmp_path / "killed", reserve_bytes=0)
    assert (await again.datasets.get("acknowledged")).dataset_id == "acknowledged"
    await again.close()


async def test_however_large_commits_are_the_file_alone_is_one_generation_behind_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit of more than 1,000 pages lets SQLite start its log twice in a row."""
    seen: list[Any] = []

    def write(path: Path, mark: Mark) -> None:
        original(path, mark)
        alone = read_mark_without_log(tmp_path / DATABASE)
        seen.append((alone.generation if alone else None, mark.generation))

    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE IF NOT EXISTS large (value BLOB)")
        connection.execute("DELETE FROM large")
        connection.executemany("INSERT INTO large VALUES (?)", [(bytes(3900),)] * 2500)

    original = generation_module._write
    monkeypatch.setattr(generation_module, "_write", write)
    store = Store.open(tmp_path, reserve_bytes=0)
    for _ in range(8):
        await store._database.write(fill)
    await store.close()
    marks = [mark for _, mark in seen]
    assert len(marks) >= 4
    assert marks == sorted(set(marks)), "the file never goes back"
    assert all(alone is None or alone >= mark - 1 for alone, mark in seen)
