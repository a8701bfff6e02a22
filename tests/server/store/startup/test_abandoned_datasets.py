"""An empty data set whose upload nobody finishes does not stay for ever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from manyview_server.errors import NotFound
from manyview_server.store.records import CheckedImage, RejectedImage
from manyview_server.store.startup.abandoned_datasets import RESUMED_WITHIN_S
from manyview_server.store.store import Store

MakeImage = Callable[..., CheckedImage]
Refused = Callable[[int], RejectedImage]
MADE = 1_795_900_000.0
DAY_LATER = MADE + RESUMED_WITHIN_S + 1


def opened(data_dir: Path, now: float = MADE) -> Store:
    return Store.open(data_dir, reserve_bytes=0, clock=lambda: now)


async def names(data_dir: Path, now: float) -> list[str]:
    """Return the data sets after a start at the time `now`. Their directories are exactly those on the disk."""
    store = opened(data_dir, now)
    found, _ = await store.datasets.list(10)
    directories = {path.name for path in (data_dir / "datasets").iterdir()}
    await store.close()
    assert directories == {dataset.uid for dataset in found}
    return [dataset.dataset_id for dataset in found]


async def test_an_upload_that_was_never_finished_leaves_no_empty_data_set(tmp_path: Path, refused: Refused) -> None:
    store = opened(tmp_path)
    await (await store.uploads.open("refused", "u", create_dataset=True)).append(1, [refused(1)])
    await store.uploads.open("opened", "u", create_dataset=True)
    await store.close()
    assert await names(tmp_path, MADE + 60) == ["refused"], "a client may still have the acknowledgement"
    store = opened(tmp_path, MADE + 60)
    session = await store.uploads.open("refused", "u", (await store.uploads.get("refused", "u")).digest)
    await session.append(2, [refused(2)])
    await store.close()
    assert await names(tmp_path, DAY_LATER) == []
    store = opened(tmp_path, DAY_LATER)
    with pytest.raises(NotFound, match="no data set"):
        await store.datasets.images("refused", ["REJECTED"], 10)
    await (await store.uploads.open("refused", "u", create_dataset=True)).append(1, [refused(1)])
    assert (await store.datasets.get("refused")).num_rejected == 1, "the rows of the first one are gone"
    await store.close()


async def test_other_data_sets_stay(tmp_path: Path, image: MakeImage, refused: Refused) -> None:
    store = opened(tmp_path)
    await store.datasets.create("asked-for")
    await (await store.uploads.open("asked-for", "u", create_dataset=True)).append(1, [refused(1)])
    await (await store.uploads.open("filled", "u", create_dataset=True)).append(1, [refused(1), image(2)])
    await store.uploads.open("trained-on", "u", create_dataset=True)
    await store.jobs.create("waits", "trained-on", "moco", {}, "1", min_images=1)
    await store.close()
    assert await names(tmp_path, DAY_LATER) == ["asked-for", "filled", "trained-on"]
