"""The same version of a data set is read once, and never another data set's."""

from __future__ import annotations

from typing import Any

import pytest

from manyview_server.front.datasets.snapshot_cache import SnapshotCache


@pytest.fixture
def reads(front: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The snapshots that were read from the database."""
    found: list[tuple[str, int]] = []
    snapshot = front.store.datasets.snapshot

    async def counted(dataset_id: str, version: int) -> Any:
        found.append((dataset_id, version))
        return await snapshot(dataset_id, version)

    monkeypatch.setattr(front.store.datasets, "snapshot", counted)
    return found


async def test_a_version_is_read_once_however_the_data_set_grows(
    front: Any, store_images: Any, reads: list[tuple[str, int]]
) -> None:
    await store_images(front, [1, 2, 3])
    cache, datasets = SnapshotCache(front.store.datasets), front.store.datasets
    first = await cache.get(await datasets.get("shirts"), 2)
    await store_images(front, [4, 5])
    again = await cache.get(await datasets.get("shirts"), 2)
    assert again.array is first.array
    assert (first.dataset.num_images, again.dataset.num_images) == (3, 5)
    assert len((await cache.get(await datasets.get("shirts"), 5)).array) == 5
    assert reads == [("shirts", 2), ("shirts", 5)]


async def test_a_data_set_that_was_created_again_under_the_same_name_is_read_again(
    front: Any, store_images: Any, reads: list[tuple[str, int]]
) -> None:
    await store_images(front, [1, 2])
    cache, datasets = SnapshotCache(front.store.datasets), front.store.datasets
    before = await cache.get(await datasets.get("shirts"), 2)
    await datasets.delete("shirts")
    await store_images(front, [3, 4])
    after = await cache.get(await datasets.get("shirts"), 2)
    assert set(after.array["image_id"]).isdisjoint(before.array["image_id"])
    assert len(reads) == 2


async def test_only_as_many_bytes_are_kept_as_are_allowed(
    front: Any, store_images: Any, reads: list[tuple[str, int]]
) -> None:
    await store_images(front, [1, 2, 3])
    dataset = await front.store.datasets.get("shirts")
    row_bytes = (await front.store.datasets.snapshot("shirts", 1)).array.nbytes
    reads.clear()
    cache = SnapshotCache(front.store.datasets, max_bytes=3 * row_bytes)
    for version in (1, 2, 1, 3, 1, 2):
        assert len((await cache.get(dataset, version)).array) == version
    # 1 and 2 fit together; 3 drives both out, and 1 drives it out.
    assert reads == [("shirts", version) for version in (1, 2, 3, 1, 2)]
    nothing_fits = SnapshotCache(front.store.datasets, max_bytes=0)
    await nothing_fits.get(dataset, 1)
    await nothing_fits.get(dataset, 1)
    assert len(reads) == 7
