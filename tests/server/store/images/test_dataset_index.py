"""A snapshot has the rows of the database, whatever happens to index files, and reads each of them there once."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview_server.errors import NotFound
from manyview_server.store import array_file
from manyview_server.store.images import dataset_index, shard_index, shard_writers
from manyview_server.store.images.shard_index import IndexedShard, Rows
from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.store.records import CheckedImage
from manyview_server.store.store import Store

MakeImage = Callable[..., CheckedImage]

SHARD_IMAGES = 5


@pytest.fixture(autouse=True, scope="module")
def small_shards() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_writers, "MAX_SHARD_IMAGES", SHARD_IMAGES)
        patch.setattr(dataset_index, "CHUNK_ROWS", 3)
        yield


class Images:
    """A data set "a" to which images are uploaded."""

    def __init__(self, image: MakeImage) -> None:
        self._image = image
        self._number = 0

    async def upload(self, store: Store, count: int) -> None:
        session = await store.uploads.open("a", f"u{self._number}", create_dataset=True)
        numbers = range(self._number, self._number + count)
        await session.append(1, [self._image(number, label=f"label {number % 3}") for number in numbers])
        self._number += count


@pytest.fixture
def images(image: MakeImage) -> Images:
    return Images(image)


async def directory_of(store: Store) -> Path:
    return store.datasets.directory((await store.datasets.get("a")).uid)


async def rows_in_database(store: Store) -> Rows:
    sql = "SELECT image_id, shard, offset, length, label, width, height FROM image ORDER BY position"
    return await store._database.read(lambda c: np.array(c.execute(sql).fetchall(), SNAPSHOT_DTYPE))


async def indexed(store: Store) -> None:
    """Wait until the shards that were closed have their index files."""
    while store.uploads._indexing:
        await asyncio.gather(*store.uploads._indexing)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The positions of the rows that are read from the database."""
    found: list[tuple[int, int]] = []
    read = dataset_index._read_rows

    def counted(connection: Any, pk: int, first: int, last: int) -> Rows:
        found.append((first, last))
        return read(connection, pk, first, last)

    monkeypatch.setattr(dataset_index, "_read_rows", counted)
    return found


async def test_images_fill_their_shards_in_the_order_of_their_positions(store: Store, images: Images) -> None:
    for count in (3, 9, 1, 12):
        await images.upload(store, count)
    shards = (await rows_in_database(store))["shard"]
    assert shards.tolist() == [position // SHARD_IMAGES for position in range(25)]


async def test_a_closed_shard_gets_its_index_without_being_asked_for(store: Store, images: Images) -> None:
    await images.upload(store, 13)
    await indexed(store)
    directory, rows = await directory_of(store), await rows_in_database(store)
    assert sorted(path.name for path in directory.glob("*.idx*")) == ["shard-00000000.idx", "shard-00000001.idx"]
    for shard in (0, 1):
        one = shard_index.verified(directory, shard)
        assert (one.first, one.end) == (5 * shard, 5 * shard + 5)
        assert np.array_equal(shard_index.read(directory, shard, one.first, one.end), rows[one.first : one.end])


async def test_a_row_leaves_the_database_once(store: Store, images: Images, reads: list[tuple[int, int]]) -> None:
    for count in (4, 9, 7):
        await images.upload(store, count)
        await indexed(store)
        assert len((await store.datasets.snapshot("a")).rows.all()) == (await store.datasets.get("a")).num_images
    first = [position for start, stop in reads for position in range(start, stop)]
    assert first == list(range(20))
    reads.clear()
    for version in (20, 3, 12, 20):
        await store.datasets.snapshot("a", version)
    assert reads == []


async def test_a_restarted_server_compares_the_ends_of_index_files_with_the_database_and_reads_nothing_else(
    tmp_path: Path, images: Images, reads: list[tuple[int, int]]
) -> None:
    store = Store.open(tmp_path, reserve_bytes=0)
    await images.upload(store, 17)
    await indexed(store)
    rows = await rows_in_database(store)
    await store.close()
    store = Store.open(tmp_path, reserve_bytes=0)
    reads.clear()
    assert np.array_equal((await store.datasets.snapshot("a", 12)).rows.all(), rows[:12])
    assert reads == []
    assert np.array_equal((await store.datasets.snapshot("a")).rows.all(), rows)
    assert reads == [(15, 17)]
    await store.close()


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The shards whose index files are compared with the database."""
    shards: list[int] = []
    count = dataset_index._count_agreeing

    def counted(connection: Any, pk: int, found: Sequence[IndexedShard]) -> int:
        shards.extend(one.shard for one in found)
        return count(connection, pk, found)

    monkeypatch.setattr(dataset_index, "_count_agreeing", counted)
    return shards


async def test_a_restarted_server_compares_the_last_index_file_which_vouches_for_those_before_it(
    tmp_path: Path, images: Images, compared: list[int], reads: list[tuple[int, int]]
) -> None:
    store = Store.open(tmp_path, reserve_bytes=0)
    await images.upload(store, 47)
    await indexed(store)
    directory, rows = await directory_of(store), await rows_in_database(store)
    for links, expected in (({}, [8]), ({3: b""}, [2, 8]), ({3: b"x" * 32, 8: b""}, [2, 7, 8])):
        await store.close()
        for shard, digest in links.items():
            shard_index.write(directory, 5 * shard, rows[5 * shard : 5 * shard + 5], digest)
            for later in range(shard + 1, 9):  # their names for the file before fit
                before = shard_index.verified(directory, later - 1).digest
                shard_index.write(directory, 5 * later, rows[5 * later : 5 * later + 5], before)
        store = Store.open(tmp_path, reserve_bytes=0)
        compared.clear()
        reads.clear()
        assert np.array_equal((await store.datasets.snapshot("a")).rows.all(), rows)
        assert compared == expected
        assert reads == [(45, 47)]
    await store.close()


async def test_where_one_index_file_is_of_other_images_all_are_compared(
    tmp_path: Path, images: Images, compared: list[int], reads: list[tuple[int, int]]
) -> None:
    store = Store.open(tmp_path, reserve_bytes=0)
    await images.upload(store, 32)
    await indexed(store)
    directory, rows = await directory_of(store), await rows_in_database(store)
    await store.close()
    others = rows[15:20].copy()
    others["image_id"][0] += 1
    before = shard_index.verified(directory, 2).digest
    shard_index.write(directory, 15, others, before)  # 3 fits to 2, but 4 does not fit to 3
    store = Store.open(tmp_path, reserve_bytes=0)
    compared.clear()
    reads.clear()
    assert np.array_equal((await store.datasets.snapshot("a")).rows.all(), rows)
    assert compared[:2] == [3, 5]
    assert compared[2:8] == [0, 1, 2, 3, 4, 5]
    assert reads == [(15, 18), (18, 21), (30, 32)]
    assert np.array_equal(shard_index.read(directory, 3, 15, 20), rows[15:20])
    await store.close()


async def test_the_first_images_of_an_old_data_set_need_no_index_of_the_others(
    tmp_path: Path, images: Images, reads: list[tuple[int, int]]
) -> None:
    store = Store.open(tmp_path, reserve_bytes=0)
    await images.upload(store, 31)
    await indexed(store)
    directory, rows = await directory_of(store), await rows_in_database(store)
    await store.close()
    for path in directory.glob("*.idx"):
        path.unlink()
    store = Store.open(tmp_path, reserve_bytes=0)
    reads.clear()
    assert np.array_equal((await store.datasets.snapshot("a", 7)).rows.all(), rows[:7])
    assert max(stop for _, stop in reads) == 7
    assert [path.name for path in directory.glob("*.idx")] == ["shard-00000000.idx"]
    assert np.array_equal((await store.datasets.snapshot("a", first=7)).rows.all(), rows[7:])
    assert len(list(directory.glob("*.idx"))) == 6
    await store.close()


async def test_an_index_of_other_images_is_not_believed(tmp_path: Path, images: Images) -> None:
    store = Store.open(tmp_path, reserve_bytes=0)
    await images.upload(store, 17)
    await indexed(store)
    directory, rows = await directory_of(store), await rows_in_database(store)
    await store.close()
    for shard, change in enumerate(("first", "last", "short")):
        others = rows[rows["shard"] == shard].copy()
        others["image_id"][0 if change == "first" else -1] += 1
        shard_index.write(directory, 5 * shard, others[: 3 if change == "short" else 5])
    shard_index.write(directory, 15, rows[15:])  # the shard is still open
    store = Store.open(tmp_path, reserve_bytes=0)
    assert not shard_index.index_path(directory, 3).exists()
    assert np.array_equal((await store.datasets.snapshot("a")).rows.all(), rows)
    assert [len(shard_index.read(directory, shard, 5 * shard, 5 * shard + 5)) for shard in range(3)] == [5, 5, 5]
    await store.close()


async def test_a_disk_that_refuses_index_files_takes_nothing_from_a_snapshot(
    store: Store, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(array_file, "write", refuse)
        await images.upload(store, 18)
        await indexed(store)
        rows = await rows_in_database(store)
        for _ in range(2):
            snapshot = await store.datasets.snapshot("a")
            assert len(snapshot.rows.shards) == 0
            assert np.array_equal(snapshot.rows.all(), rows)
            assert np.array_equal((await store.datasets.snapshot("a", 9, first=4)).rows.all(), rows[4:9])
    await images.upload(store, 4)
    snapshot = await store.datasets.snapshot("a")
    assert snapshot.rows.ends.tolist() == [5, 10, 15, 20]
    assert np.array_equal(snapshot.rows.all(), await rows_in_database(store))


async def test_a_data_set_that_is_deleted_while_its_rows_are_read_is_not_found(
    store: Store, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    await images.upload(store, 4)
    dataset = await store.datasets.get("a")
    pk = await store._database.read(lambda c: c.execute("SELECT pk FROM dataset").fetchone()[0])
    index = store.datasets._indexes.of(pk, dataset.uid)
    await store.datasets.delete("a")
    with pytest.raises(NotFound, match="has been deleted"):
        await index.rows(0, 4)
    await store.datasets.index_sealed_shards(pk)


async def test_only_the_data_sets_that_were_used_last_keep_rows_in_memory(
    store: Store, image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_index, "MAX_DATASETS", 2)
    for name in ("x", "y", "z", "x"):
        await (await store.uploads.open(name, "u", create_dataset=True)).append(1, [image(1)])
        assert len((await store.datasets.snapshot(name)).rows) == 1
    assert len(store.datasets._indexes._used) == 2


STEPS = st.one_of(
    st.tuples(st.just("upload"), st.integers(1, 12)),
    st.tuples(st.sampled_from(["remove", "flip", "cut", "empty"]), st.integers(0, 4)),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("read"), st.none()),
)


@given(steps=st.lists(STEPS, min_size=1, max_size=8), data=st.data())
@settings(max_examples=20, deadline=None)
def test_uploads_restarts_and_damaged_index_files_in_any_order_give_the_rows_of_the_database(
    steps: list[tuple[str, Any]], data: st.DataObject
) -> None:
    async def run(data_dir: Path) -> None:
        store, images = Store.open(data_dir, reserve_bytes=0), Images(made)
        await images.upload(store, 1)
        for name, argument in steps:
            if name == "upload":
                await images.upload(store, argument)
            elif name == "restart":
                await store.close()
                store = Store.open(data_dir, reserve_bytes=0)
            elif name == "read":
                rows = await rows_in_database(store)
                first, last = sorted(data.draw(st.lists(st.integers(0, len(rows)), min_size=2, max_size=2)))
                assert np.array_equal(
                    (await store.datasets.snapshot("a", last, first=first)).rows.all(), rows[first:last]
                )
            else:
                await indexed(store)
                damage(shard_index.index_path(await directory_of(store), argument), name, data)
        snapshot = await store.datasets.snapshot("a")
        assert np.array_equal(snapshot.rows.all(), await rows_in_database(store))
        await store.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(Path(directory)))


def damage(path: Path, how: str, data: st.DataObject) -> None:
    if not path.exists():
        return
    if how == "remove":
        path.unlink()
        return
    whole = path.read_bytes()
    at = data.draw(st.integers(0, max(0, len(whole) - 1)))
    changed = {"flip": whole[:at] + bytes(byte ^ 1 for byte in whole[at : at + 1]) + whole[at + 1 :], "cut": whole[:at]}
    path.write_bytes(changed.get(how, b""))
    os.utime(path, (0, data.draw(st.integers(1, 1 << 30))))  # the clock of a file system may stand still for 4 ms


def made(number: int, *, label: str) -> CheckedImage:
    content = f"image {number}".encode()
    sha256 = hashlib.sha256(content).digest()
    return CheckedImage(data=content, key="", label=label, sha256=sha256, extension="jpg", width=4, height=3)
