from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from manyview_server.store import deletions
from manyview_server.store.deletions import Deletions
from manyview_server.store.jobs.job_verbs import CANCEL
from manyview_server.store.records import CheckedImage
from manyview_server.store.store import Store


async def test_a_deletion_that_a_crash_interrupted_is_finished_at_the_next_start(
    tmp_path: Path, image: Callable[[int], CheckedImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path, reserve_bytes=0)
    gone, kept = await store.datasets.create("gone"), await store.datasets.create("kept")
    for name in ("gone", "kept"):
        await (await store.uploads.open(name, "u")).append(1, [image(1)])

    async def crash(self: Deletions) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Deletions, "sweep", crash)
        with pytest.raises(KeyboardInterrupt):
            await store.datasets.delete("gone")
    assert store.datasets.directory(gone.uid).exists()
    await store.close()

    store = Store.open(tmp_path, reserve_bytes=0)
    assert not store.datasets.directory(gone.uid).exists()
    assert store.datasets.directory(kept.uid).exists()
    rows = await store.datasets._database.read(lambda c: c.execute("SELECT count(*) FROM image").fetchone())
    assert rows == (1,)
    await store.close()


def make_table(store: Store, dataset: str, name: str) -> Path:
    """A table of embeddings with a segment, and one whose writing was cut off."""
    table = store.embeddings_dir / dataset / name
    table.mkdir(parents=True)
    (table / "segment-00000000").write_bytes(b"rows")
    (table / "segment-00000001-ab.tmp").write_bytes(b"ro")
    return table


async def test_embeddings_go_with_their_data_set_and_with_their_job(store: Store) -> None:
    gone, kept = await store.datasets.create("gone"), await store.datasets.create("kept")
    job = await store.jobs.create("j", "kept", "moco", {}, "1")
    other = await store.jobs.create("k", "kept", "moco", {}, "1")
    of_gone = make_table(store, gone.uid, "backbone-1")
    of_job, of_other = (make_table(store, kept.uid, f"{uid}-1") for uid in (job.uid, other.uid))
    await store.datasets.delete("gone")
    assert not of_gone.parent.exists()
    await store.jobs.request("j", CANCEL)
    await store.jobs.delete("j")
    assert (of_job.exists(), of_other.exists()) == (False, True)


async def test_a_start_removes_embeddings_of_nobody_and_unfinished_ones(tmp_path: Path) -> None:
    store = Store.open(tmp_path, reserve_bytes=0)
    dataset = await store.datasets.create("a")
    job = await store.jobs.create("j", "a", "moco", {}, "1")
    kept = [make_table(store, dataset.uid, name) for name in ("backbone-1", f"{job.uid}-2")]
    left = [make_table(store, uid, name) for uid, name in (("d" * 32, "backbone-1"), (dataset.uid, f"{'d' * 32}-1"))]
    await store.close()
    store = Store.open(tmp_path, reserve_bytes=0)
    assert [table.exists() for table in (*kept, *left)] == [True, True, False, False]
    assert [path.name for path in kept[0].iterdir()] == ["segment-00000000"]
    await store.close()


def first_row(sql: str, connection: sqlite3.Connection) -> Any:
    return connection.execute(sql).fetchone()


async def test_a_deletion_that_comes_while_another_one_ends_is_not_forgotten(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes after the sweep of the first has seen the last rows go, and before that sweep looks at directories."""
    monkeypatch.setattr(deletions, "CHUNK_ROWS", 10)
    loop, real = asyncio.get_running_loop(), deletions._remove_chunk
    second: list[asyncio.Task[None] | None] = []
    for name, count in (("small", 1), ("big", 35)):
        await store.datasets.create(name)

        def insert(connection: sqlite3.Connection, name: str = name, count: int = count) -> None:
            (pk,) = connection.execute("SELECT pk FROM dataset WHERE dataset_id = ?", (name,)).fetchone()
            rows = ((pk, n + 1, (pk << 24) + n, 0, 0, 1, -1, 1, 1, "", 1, 1) for n in range(count))
            connection.executemany("INSERT INTO image VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

        await store._database.write(insert)

    def delete_big() -> None:
        second.append(asyncio.create_task(store.datasets.delete("big")))

    def watched(connection: sqlite3.Connection, most: int) -> bool:
        more = real(connection, most)
        if not more and not second:
            second.append(None)
            loop.call_soon_threadsafe(delete_big)
        return more

    monkeypatch.setattr(deletions, "_remove_chunk", watched)
    await store.datasets.delete("small")
    assert second[1] is not None
    await second[1]
    for table in ("image", "trash", "dataset"):
        sql = f"SELECT count(*) FROM {table}"
        assert await store._database.read(partial(first_row, sql)) == (0,), table
    assert list(store.datasets_dir.iterdir()) == []


async def test_a_directory_that_cannot_be_removed_is_tried_again_and_is_no_reason_to_refuse_the_start(
    tmp_path: Path, image: Callable[[int], CheckedImage], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    store = Store.open(tmp_path, reserve_bytes=0)
    gone = await store.datasets.create("gone")
    await (await store.uploads.open("gone", "u")).append(1, [image(1)])
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        await store.datasets.delete("gone")
    assert "cannot be removed now" in caplog.text
    assert store.datasets.directory(gone.uid).exists()
    await store.close()
    store = Store.open(tmp_path, reserve_bytes=0)
    assert not store.datasets.directory(gone.uid).exists()
    assert await store._database.read(lambda c: c.execute("SELECT count(*) FROM trash").fetchone()) == (0,)
    await store.close()


async def test_chunks_follow_the_time_that_the_ones_before_took(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 0.001, 1, 1.002, 2, 2.5, 3, 3.02, 4, 4.02, 5])
    monkeypatch.setattr(deletions, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    sizes: list[int] = []

    def remove(connection: sqlite3.Connection, most: int) -> bool:
        sizes.append(most)
        return len(sizes) < 6

    monkeypatch.setattr(deletions, "_remove_chunk", remove)
    await store._database.call(store._deletions.sweep_at_start)
    assert sizes == [500, 1_000, 2_000, 1_000, 1_000, 1_000]
