from __future__ import annotations

from pathlib import Path

import pytest

from manyview_server.errors import NotFound
from manyview_server.store.event_payloads import CheckpointSaved
from manyview_server.store.records import Checkpoint
from manyview_server.store.store import Store


@pytest.fixture
async def store(store: Store) -> Store:
    await store.datasets.create("a")
    await store.jobs.create("j", "a", "moco", {}, "0.1.0")
    return store


async def add_checkpoint(store: Store, step: int, attempt: int = 1, directory: str = "") -> Checkpoint:
    job = await store.jobs.get("j")
    path = store.checkpoints.directory(job.uid) / (directory or f"{step:09d}-{attempt}")
    path.mkdir()
    return await store.checkpoints.add(
        "j", step=step, epoch=1, attempt=attempt, directory=str(path), num_bytes=7, model={"method": "moco"}
    )


async def test_checkpoints_are_registered_with_their_event(store: Store) -> None:
    first = await add_checkpoint(store, 10)
    await add_checkpoint(store, 20)
    assert Path(first.directory).is_dir()
    assert (first.name, first.model, first.pinned) == ("trainJobs/j/checkpoints/10", {"method": "moco"}, False)
    assert [c.step for c in await store.checkpoints.list("j")] == [20, 10]
    assert [c.step for c in await store.checkpoints.list()] == [20, 10]
    assert (await store.checkpoints.get("j")).step == (await store.jobs.get("j")).latest_checkpoint == 20
    assert await store.checkpoints.get("j", 10) == first
    event = (await store.events.read("j", 1, 1))[0]
    assert (event.kind, event.step, event.payload) == (
        "checkpoint",
        10,
        CheckpointSaved(step=10, directory="000000010-1", num_bytes=7),
    )


async def test_a_new_checkpoint_clears_the_count_of_restarts(store: Store) -> None:
    await store.jobs.transition("j", {"QUEUED"}, "STARTING", restarts=2)
    await add_checkpoint(store, 10)
    assert (await store.jobs.get("j")).restarts == 0


async def test_a_dropped_checkpoint_is_gone_from_the_disk_and_the_one_before_is_the_latest(store: Store) -> None:
    await add_checkpoint(store, 10)
    dropped = await add_checkpoint(store, 20)
    await store.checkpoints.delete("j", 20)
    assert not Path(dropped.directory).exists()
    assert (await store.jobs.get("j")).latest_checkpoint == 10
    with pytest.raises(NotFound) as caught:
        await store.checkpoints.get("j", 20)
    assert caught.value.reason == "MODEL_NOT_FOUND"
    await store.checkpoints.delete("j", 10)
    assert (await store.jobs.get("j")).latest_checkpoint == -1


async def test_a_step_that_is_done_again_replaces_its_checkpoint_and_keeps_the_pin(store: Store) -> None:
    old = await add_checkpoint(store, 10, attempt=1)
    await store.checkpoints.pin("j", 10)
    new = await add_checkpoint(store, 10, attempt=2)
    assert (new.attempt, new.pinned) == (2, True)
    assert Path(new.directory).is_dir()
    assert not Path(old.directory).exists()


async def test_after_a_fall_back_the_newest_attempts_checkpoint_is_the_latest(store: Store) -> None:
    await add_checkpoint(store, 100, attempt=1)
    await add_checkpoint(store, 60, attempt=2)
    assert (await store.checkpoints.get("j")).step == 60
