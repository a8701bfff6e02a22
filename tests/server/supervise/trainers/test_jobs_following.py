"""Jobs that follow a data set which grows."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import Any

import pytest

from manyview_server.store.event_payloads import Log, SnapshotAdopted
from manyview_server.store.records import CheckedImage
from manyview_server.store.store import Store
from manyview_server.supervise.trainers import dataset_following
from support.service.supervised import QUICK, create, reach


async def add_images(store: Store, *numbers: int) -> None:
    session = await store.uploads.open("clothing", f"upload-{numbers[0]}", b"")
    images = []
    for number in numbers:
        data = f"image {number}".encode()
        sha256 = hashlib.sha256(data).digest()
        images.append(CheckedImage(data=data, key="", label="", sha256=sha256, extension="jpg", width=1, height=1))
    await session.append(1, images)


async def test_a_job_that_follows_waits_for_its_first_images_and_others_go_before_it(
    store: Store, supervise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_following, "POLL_S", 0.02)
    await store.jobs.create("following", "clothing", "moco", {}, "1", min_images=3)
    await create(store, "other")
    await supervise({"steps": 2, "reports": True})
    await reach(store, "other", "SUCCEEDED")
    job = await store.jobs.get("following")
    assert (job.state, job.num_images) == ("QUEUED", 0)
    await add_images(store, 1, 2)
    job = await reach(store, "following", "SUCCEEDED")
    assert (job.num_images, await logged(store, "following")) == (3, ["follows True, 3 images, adopted [3]"])
    assert await logged(store, "other") == ["follows False, 1 images, adopted []"]


async def test_a_job_that_follows_hears_of_each_image_once_over_all_attempts(
    store: Store, supervise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_following, "POLL_S", 0.02)
    await store.jobs.create("following", "clothing", "moco", {}, "1", min_images=1)
    slow = {"steps": 60, "step_s": 0.02, "reports": True, "checkpoint_every": 20}
    supervisor = await supervise([slow | {"die_at": 30}, slow], patience=replace(QUICK, step_s=5))
    await reach(store, "following", "RUNNING")
    await add_images(store, 1, 2)
    await sizes_reach(store, 3)
    await reach(store, "following", "RECOVERING")
    await add_images(store, 3)
    await sizes_reach(store, 4)
    job = await reach(store, "following", "SUCCEEDED")
    assert job.num_images == 4
    lines = await logged(store, "following")
    assert lines[0] == "follows True, 1 images, adopted [1]"
    assert lines[1].startswith("follows True, 3 images"), "what an attempt adopted the next one has from its start"
    assert [payload.num_added for payload in await snapshots(store)] == [1, 2, 1]
    await supervisor.drain()


async def snapshots(store: Store) -> list[SnapshotAdopted]:
    payloads = [event.payload for event in await store.events.read("following", 0, 1000)]
    return [payload for payload in payloads if isinstance(payload, SnapshotAdopted)]


async def sizes_reach(store: Store, num_images: int) -> None:
    async with asyncio.timeout(10):
        while (await store.jobs.get("following")).num_images < num_images:
            await asyncio.sleep(0.01)


async def logged(store: Store, name: str) -> list[str]:
    payloads = [event.payload for event in await store.events.read(name, 0, 1000)]
    return [payload.text for payload in payloads if isinstance(payload, Log)]
