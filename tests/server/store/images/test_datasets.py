from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from manyview_server.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from manyview_server.store import deletions as trash_module
from manyview_server.store.images import dataset_index as index_module
from manyview_server.store.images import datasets as datasets_module
from manyview_server.store.images import image_rows as image_rows_module
from manyview_server.store.images.shards import SNAPSHOT_DTYPE, ShardReader, image_id_of
from manyview_server.store.jobs.job_verbs import CANCEL
from manyview_server.store.records import CheckedImage, ImageRecord, ImageRef, RejectedImage
from manyview_server.store.store import Store

MakeImage = Callable[..., CheckedImage]


@pytest.fixture
async def mixed(store: Store, image: MakeImage, refused: Callable[[int], RejectedImage]) -> Store:
    """A data set "a" of images 1 to 4 in two batches, with two rejected ones between them. Image 2 is unreadable."""
    dataset = await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    await session.append(1, [image(1, label="dog"), refused(8), image(2, label="cat")])
    await session.append(2, [image(3), refused(9), image(4, label="ant")])
    assert await store.datasets.mark_unreadable(dataset.uid, image_id_of(image(2).sha256), "DECODE_FAILED", "torn")
    return store


async def listed(store: Store, *statuses: str, page_size: int) -> list[ImageRecord]:
    records, token = await store.datasets.images("a", statuses, page_size)
    while token:
        page, token = await store.datasets.images("a", statuses, page_size, token)
        assert page
        records += page
    return records


async def test_a_data_set_counts_what_it_holds(mixed: Store) -> None:
    dataset = await mixed.datasets.get("a")
    assert (dataset.num_images, dataset.num_bytes, dataset.num_labels, dataset.num_labelled) == (4, 400, 3, 3)
    assert (dataset.num_rejected, dataset.num_unreadable) == (2, 1)


@pytest.mark.parametrize("page_size", [1, 2, 3, 4, 5, 6, 100])
@pytest.mark.parametrize(
    ("statuses", "keys"),
    [
        ((), ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]),
        (("STORED",), ["1.jpg", "3.jpg", "4.jpg"]),
        (("UNREADABLE",), ["2.jpg"]),
        (("REJECTED",), ["8.gif", "9.gif"]),
        (("UNREADABLE", "REJECTED"), ["2.jpg", "8.gif", "9.gif"]),
        (("STORED", "UNREADABLE", "REJECTED"), ["1.jpg", "2.jpg", "3.jpg", "4.jpg", "8.gif", "9.gif"]),
    ],
)
async def test_listings_hold_each_image_once_whatever_the_page(
    mixed: Store, statuses: tuple[str, ...], keys: list[str], page_size: int
) -> None:
    assert [record.key for record in await listed(mixed, *statuses, page_size=page_size)] == keys


async def test_a_listed_image_says_what_it_is_and_what_is_wrong_with_it(mixed: Store, image: MakeImage) -> None:
    records = await listed(mixed, "STORED", "UNREADABLE", "REJECTED", page_size=10)
    assert records[1] == ImageRecord(
        image_id=image_id_of(image(2).sha256),
        key="2.jpg",
        label="cat",
        status="UNREADABLE",
        num_bytes=100,
        width=4,
        height=3,
        reason="DECODE_FAILED",
        message="torn",
    )
    assert (records[0].status, records[2].label) == ("STORED", "")
    assert (records[4].status, records[4].reason, records[4].num_bytes) == ("REJECTED", "FORMAT_NOT_ALLOWED", 7)
    with pytest.raises(InvalidArgument, match="page token"):
        await mixed.datasets.images("a", (), 10, "ix")


async def test_an_image_is_unreadable_once(mixed: Store, image: MakeImage) -> None:
    uid = (await mixed.datasets.get("a")).uid
    assert not await mixed.datasets.mark_unreadable(uid, image_id_of(image(2).sha256), "DECODE_FAILED", "torn")
    assert not await mixed.datasets.mark_unreadable(uid, 12345, "DECODE_FAILED", "unknown")
    assert not await mixed.datasets.mark_unreadable("gone", image_id_of(image(1).sha256), "DECODE_FAILED", "")
    assert (await mixed.datasets.get("a")).num_unreadable == 1


async def test_unreadable_images_are_told_for_a_range_of_positions(mixed: Store, image: MakeImage) -> None:
    uid, unreadable = (await mixed.datasets.get("a")).uid, mixed.datasets.unreadable_ids
    image_id = image_id_of(image(2).sha256)
    for places, expected in (
        ((), (image_id,)),
        ((0, 4), (image_id,)),
        ((1, 2), (image_id,)),
        ((0, 1), ()),
        ((2, 4), ()),
    ):
        assert await unreadable(uid, "DECODE_FAILED", *places) == expected, places
    assert await unreadable(uid, "DECODER_CRASHED") == ()


async def test_a_long_list_of_unreadable_images_is_read_in_short_visits(
    mixed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets_module, "UNREADABLE_CHUNK_ROWS", 2)
    uid = (await mixed.datasets.get("a")).uid
    image_ids = (await mixed.datasets.snapshot("a")).rows.all()["image_id"].tolist()
    for image_id, reason in zip(image_ids, ("DECODER_CRASHED", "DECODE_TOO_SLOW") * 2, strict=True):
        await mixed.datasets.mark_unreadable(uid, image_id, reason, "because")
    visits, read = [], mixed._database.read

    async def counted(fn: Any) -> Any:
        found = await read(fn)
        visits.append(len(found))
        return found

    monkeypatch.setattr(mixed._database, "read", counted)
    assert await mixed.datasets.unreadable_ids(uid, "DECODER_CRASHED") == tuple(image_ids[::2])
    assert visits == [2, 2, 0]
    assert await mixed.datasets.unreadable_ids(uid, "DECODE_TOO_SLOW", 1, 3) == (image_ids[1],)
    assert await mixed.datasets.unreadable_ids("0" * 32, "DECODE_TOO_SLOW") == ()


async def test_a_snapshot_numbers_labels_as_they_first_appeared(mixed: Store) -> None:
    snapshot = await mixed.datasets.snapshot("a")
    assert snapshot.rows.all().dtype == SNAPSHOT_DTYPE
    assert await mixed.datasets.labels(snapshot.dataset.uid) == ("dog", "cat", "ant")
    assert snapshot.rows.all()["label"].tolist() == [0, 1, -1, 2]
    assert (snapshot.version, snapshot.rows.all()["width"].tolist()) == (4, [4, 4, 4, 4])


async def test_a_snapshot_is_a_prefix_that_later_uploads_do_not_change(
    mixed: Store, image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await mixed.datasets.snapshot("a", 2)
    await (await mixed.uploads.open("a", "v")).append(1, [image(5, label="bee")])
    monkeypatch.setattr(index_module, "CHUNK_ROWS", 2)
    again, whole = await mixed.datasets.snapshot("a", 2), await mixed.datasets.snapshot("a")
    assert (again.rows.all() == before.rows.all()).all()
    assert whole.rows.all()["image_id"][:2].tolist() == before.rows.all()["image_id"].tolist()
    labels = await mixed.datasets.labels(whole.dataset.uid)
    assert labels == ("dog", "cat", "ant", "bee"), "a label's number stays as the data set grows"
    assert (whole.rows.all()[:2] == before.rows.all()).all()
    rest = await mixed.datasets.snapshot("a", first=2)
    assert rest.version == 5
    assert (rest.rows.all() == whole.rows.all()[2:]).all()
    with pytest.raises(ValueError, match="0 to 6"):
        await mixed.datasets.snapshot("a", 6)


async def test_an_empty_data_set_has_an_empty_snapshot(store: Store) -> None:
    await store.datasets.create("a")
    snapshot = await store.datasets.snapshot("a")
    assert (len(snapshot.rows.all()), snapshot.version) == (0, 0)
    assert await store.datasets.labels(snapshot.dataset.uid) == ()


async def test_names_are_taken_once_and_free_again_after_deletion(store: Store) -> None:
    first = await store.datasets.create("a")
    with pytest.raises(AlreadyExists, match="'a'"):
        await store.datasets.create("a")
    await store.datasets.delete("a")
    second = await store.datasets.create("a")
    assert first.uid != second.uid
    with pytest.raises(NotFound, match="'b'"):
        await store.datasets.get("b")


async def test_data_sets_are_listed_in_pages(store: Store) -> None:
    for name in ("c", "a", "b"):
        await store.datasets.create(name)
    page, token = await store.datasets.list(2)
    assert [d.dataset_id for d in page] == ["a", "b"]
    page, token = await store.datasets.list(2, token)
    assert ([d.dataset_id for d in page], token) == (["c"], "")
    assert (await store.datasets.list(3))[1] == ""


async def test_a_data_set_that_a_job_reads_cannot_be_deleted(mixed: Store) -> None:
    await mixed.jobs.create("j", "a", "simclr", {}, "0")
    with pytest.raises(FailedPrecondition) as caught:
        await mixed.datasets.delete("a")
    assert (caught.value.reason, caught.value.metadata) == ("DATASET_IN_USE", {"train_job": "j"})
    await mixed.jobs.request("j", CANCEL)
    await mixed.datasets.delete("a")
    assert (await mixed.jobs.get("j")).dataset_id == "a"


def num_rows(table: str, connection: sqlite3.Connection) -> Any:
    return connection.execute(f"SELECT count(*) FROM {table}").fetchone()


async def test_a_deleted_data_set_leaves_neither_rows_nor_files(mixed: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trash_module, "CHUNK_ROWS", 2)
    directory = mixed.datasets.directory((await mixed.datasets.get("a")).uid)
    assert directory.exists()
    await mixed.datasets.delete("a")
    assert not directory.exists()
    for table in ("dataset", "image", "label", "rejected", "unreadable", "upload", "trash"):
        count = await mixed.datasets._database.read(partial(num_rows, table))
        assert count == (0,), table


async def test_an_image_is_found_by_its_id_and_by_its_key_with_its_place(mixed: Store, image: MakeImage) -> None:
    wanted = image_id_of(image(4, label="ant").sha256)
    for ref in (ImageRef(image_id=wanted), ImageRef(key="4.jpg")):
        (found,) = await mixed.datasets.find_images("a", [ref])
        assert (found.position, found.record.image_id, found.record.label) == (3, wanted, "ant")
        directory = mixed.datasets.directory((await mixed.datasets.get("a")).uid)
        assert ShardReader(directory).read(found.shard, found.offset, found.record.num_bytes) == image(4).data
    keys = ["3.jpg", "1.jpg", "2.jpg", "1.jpg"]
    found_all = await mixed.datasets.find_images("a", [ImageRef(key=key) for key in keys])
    assert [found.record.key for found in found_all] == keys
    assert found_all[2].record.status == "UNREADABLE"


@pytest.mark.parametrize("ref", [ImageRef(key="8.gif"), ImageRef(key=""), ImageRef(image_id=7)])
async def test_an_image_that_is_not_there_is_not_found_and_named(mixed: Store, ref: ImageRef) -> None:
    with pytest.raises(NotFound, match=f"no image has the (key '{ref.key}'|id 0000000000000007)") as caught:
        await mixed.datasets.find_images("a", [ImageRef(key="1.jpg"), ref])
    assert caught.value.reason == "IMAGE_NOT_FOUND"


async def test_a_key_of_several_images_names_none(store: Store, image: MakeImage) -> None:
    await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    await session.append(1, [image(1, key="same.jpg"), image(2, key="same.jpg")])
    ids = [f"{image_id_of(image(number).sha256):016x}" for number in (1, 2)]
    text = f"'same.jpg', for example {ids[0]} and {ids[1]}: give the id of the image"
    with pytest.raises(FailedPrecondition, match=text) as caught:
        await store.datasets.find_images("a", [ImageRef(key="same.jpg")])
    assert caught.value.reason == "KEY_AMBIGUOUS"


async def test_images_are_found_by_their_positions(mixed: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets_module, "LOOKUP_CHUNK_ROWS", 2)
    uid = (await mixed.datasets.get("a")).uid
    listed_ones = await listed(mixed, page_size=10)
    assert await mixed.datasets.images_at(uid, [3, 0, 1, 2, 0]) == [listed_ones[row] for row in (3, 0, 1, 2, 0)]
    await mixed.datasets.delete("a")
    with pytest.raises(NotFound, match="has been deleted"):
        await mixed.datasets.images_at(uid, [0])


async def test_keys_are_looked_up_in_an_index(mixed: Store) -> None:
    plan = "EXPLAIN QUERY PLAN SELECT position FROM image WHERE dataset = 1 AND key = 'x' AND key <> ''"
    (row,) = await mixed._database.read(lambda connection: connection.execute(plan).fetchall())
    assert "image_by_key" in row[3]


async def test_what_is_read_in_parts_is_what_is_read_at_once(mixed: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each visit to the database thread reads two rows."""
    uid = (await mixed.datasets.get("a")).uid
    kinds = (["STORED"], ["UNREADABLE"], ["REJECTED"], ["STORED", "REJECTED"], ["STORED", "UNREADABLE", "REJECTED"])
    for image_id in [record.image_id for record in await listed(mixed, "STORED", page_size=100)][:2]:
        await mixed.datasets.mark_unreadable(uid, image_id, "DECODE_FAILED", "torn")

    async def everything() -> list[object]:
        lists: list[object] = [await listed(mixed, *kind, page_size=size) for kind in kinds for size in (1, 3, 100)]
        ids = await mixed.datasets.unreadable_ids(uid, "DECODE_FAILED", 1, 3)
        positions = await mixed.datasets.unreadable_positions(uid, 4)
        return [*lists, ids, positions.tolist(), await mixed.datasets.labels(uid)]

    at_once = await everything()
    monkeypatch.setattr(image_rows_module, "MAX_PART_ROWS", 2)
    monkeypatch.setattr(datasets_module, "LIST_CHUNK_ROWS", 2)
    assert await everything() == at_once
    assert at_once[-2] == [0, 1, 2]
    assert at_once[-1] == ("dog", "cat", "ant")


async def test_no_visit_reads_more_rows_than_one_part_of_a_page(mixed: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where nearly all images have another status than the page's."""
    monkeypatch.setattr(image_rows_module, "MAX_PART_ROWS", 2)
    parts: list[int] = []
    real = image_rows_module.images_part

    def counted(*arguments: Any) -> Any:
        part = real(*arguments)
        parts.append(len(part[0]))
        return part

    monkeypatch.setattr(datasets_module, "images_part", counted)
    assert len(await listed(mixed, "STORED", page_size=100)) == 3
    assert parts == [1, 2]
