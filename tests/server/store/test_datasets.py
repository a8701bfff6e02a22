from __future__ import annotations

from collections.abc import Callable

import pytest

from manyview_server.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from manyview_server.store import datasets as datasets_module
from manyview_server.store import trash as trash_module
from manyview_server.store.job_verbs import CANCEL
from manyview_server.store.records import CheckedImage, ImageRecord, RejectedImage
from manyview_server.store.shards import SNAPSHOT_DTYPE, image_id_of
from manyview_server.store.store import Store

MakeImage = Callable[..., CheckedImage]


@pytest.fixture
async def mixed(store: Store, image: MakeImage, refused: Callable[[int], RejectedImage]) -> Store:
    """A data set "a": images 1 to 4 in two batches with two refused ones between, image 2 unreadable."""
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


async def test_a_snapshot_numbers_labels_as_they_first_appeared(mixed: Store) -> None:
    snapshot = await mixed.datasets.snapshot("a")
    assert snapshot.array.dtype == SNAPSHOT_DTYPE
    assert snapshot.labels == ("dog", "cat", "ant")
    assert snapshot.array["label"].tolist() == [0, 1, -1, 2]
    assert (snapshot.version, snapshot.array["width"].tolist()) == (4, [4, 4, 4, 4])


async def test_a_snapshot_is_a_prefix_that_later_uploads_do_not_change(
    mixed: Store, image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await mixed.datasets.snapshot("a", 2)
    await (await mixed.uploads.open("a", "v")).append(1, [image(5, label="bee")])
    monkeypatch.setattr(datasets_module, "SNAPSHOT_CHUNK_ROWS", 2)
    again, whole = await mixed.datasets.snapshot("a", 2), await mixed.datasets.snapshot("a")
    assert (again.array == before.array).all()
    assert whole.array["image_id"][:2].tolist() == before.array["image_id"].tolist()
    assert whole.labels == (*before.labels, "bee"), "a label's number stays as the data set grows"
    assert (whole.array[:2] == before.array).all()
    rest = await mixed.datasets.snapshot("a", first=2)
    assert rest.version == 5
    assert (rest.array == whole.array[2:]).all()
    with pytest.raises(ValueError, match="0 to 6"):
        await mixed.datasets.snapshot("a", 6)


async def test_an_empty_data_set_has_an_empty_snapshot(store: Store) -> None:
    await store.datasets.create("a")
    snapshot = await store.datasets.snapshot("a")
    assert (len(snapshot.array), snapshot.labels, snapshot.version) == (0, (), 0)


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


async def test_a_deleted_data_set_leaves_neither_rows_nor_files(mixed: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trash_module, "CHUNK_ROWS", 2)
    directory = mixed.datasets.directory((await mixed.datasets.get("a")).uid)
    assert directory.exists()
    await mixed.datasets.delete("a")
    assert not directory.exists()
    for table in ("dataset", "image", "label", "rejected", "unreadable", "upload", "trash"):
        count = await mixed.datasets._database.read(
            lambda c, t=table: c.execute(f"SELECT count(*) FROM {t}").fetchone()
        )
        assert count == (0,), table
