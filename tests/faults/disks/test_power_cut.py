"""The power fails: on the disk is what was synced, and nothing else (F2, F44).

Promises: every acknowledged image is listed, once, with its bytes; an upload goes on where it was; an event that a
subscriber saw is never gone or replaced by another; a registered checkpoint is whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import manyview
from manyview_server.store.images.shards import ShardReader, image_id_of, scan, shard_path
from manyview_server.store.jobs import checkpoints
from manyview_server.store.store import Store
from support.clients.probe import require
from support.faults.disks import Ext4, ext4, server_on
from support.service.harness import SMALL_JOB, ServerProcess, wait_until, write_photos
from support.soak.rounds import rounds

ROUNDS = rounds(1)
NUM_IMAGES = 500


@pytest.fixture
def disk() -> Iterator[Ext4]:
    """A disk whose power can be cut."""
    require("loop")
    with ext4() as made:
        yield made


@pytest.fixture
def server(disk: Ext4, catalogue: Path) -> Iterator[ServerProcess]:
    """A running server with its data on that disk."""
    with server_on(disk.path, catalogue) as made:
        made.start()
        yield made


def stored_keys(data_dir: Path, dataset_id: str) -> list[str]:
    """The keys of a data set's images in their order, after comparing each one's bytes with its id.

    Nothing may lie beyond the last image in the shards, and no image may be there twice.
    """

    async def read() -> list[str]:
        store = Store.open(data_dir)
        records, _ = await store.datasets.images(dataset_id, [], 10_000)
        snapshot = await store.datasets.snapshot(dataset_id)
        directory = store.datasets.directory(snapshot.dataset.uid)
        reader = ShardReader(directory)
        for row in snapshot.rows.all():
            data = reader.read(int(row["shard"]), int(row["offset"]), int(row["length"]))
            assert image_id_of(hashlib.sha256(data).digest()) == row["image_id"]
        reader.close()
        ids = [record.image_id for record in records]
        assert ids == list(snapshot.rows.all()["image_id"])
        assert len(set(ids)) == len(ids) == snapshot.dataset.num_images
        in_shards = [image for path in sorted(directory.glob("*.tar")) for image in scan(path)]
        assert [image.image_id for image in in_shards] == ids
        size = shard_path(directory, 0).stat().st_size if ids else 0
        assert size == (in_shards[-1].end if ids else 0)
        await store.close()
        return [record.key for record in records]

    return asyncio.run(read())


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_power_cut_during_uploads_takes_no_acknowledged_image_and_they_go_on(
    disk: Ext4, server: ServerProcess, tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    names = ("one", "two")
    acknowledged, failures = {name: 0 for name in names}, []
    for number, name in enumerate(names):
        write_photos(tmp_path / name, NUM_IMAGES, seed=2 * seed + number)

    def upload(name: str) -> None:
        def progress(done: int, _total: object) -> None:
            acknowledged[name] = done

        try:
            with server.client() as client:
                client.upload(tmp_path / name, dataset=name, progress=progress)
        except manyview.ManyviewError as error:
            failures.append(error)

    uploaders = [threading.Thread(target=upload, args=(name,)) for name in names]
    for uploader in uploaders:
        uploader.start()
    threshold = draw.randrange(1, NUM_IMAGES)
    wait_until(lambda: sum(acknowledged.values()) >= threshold, f"{threshold} images acknowledged")
    time.sleep(draw.uniform(0, 0.02))
    disk.power_cut(server)
    before = dict(acknowledged)
    for name in names:
        if before[name]:
            files = sorted(path.relative_to(tmp_path / name).as_posix() for path in (tmp_path / name).rglob("*.jpg"))
            stored = stored_keys(disk.path, name)
            assert len(stored) >= before[name]
            assert stored == files[: len(stored)]
    server.start()
    for uploader in uploaders:
        uploader.join(50)
        assert not uploader.is_alive()
    assert not failures
    with server.client() as client:
        assert client.health() == "SERVING"
    assert server.stop() == 0
    for name in names:
        assert len(stored_keys(disk.path, name)) == NUM_IMAGES


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_power_cut_while_a_job_trains_takes_no_event_that_was_seen_and_leaves_whole_checkpoints(
    disk: Ext4, server: ServerProcess, tmp_path: Path, seed: int
) -> None:
    write_photos(tmp_path / "photos", 96, seed=seed)
    seen: list[manyview.Event] = []
    with server.client() as client:
        job = client.train(client.upload(tmp_path / "photos", "photos"), epochs=14, config=SMALL_JOB)

        def subscribe() -> None:
            with server.client() as own:
                for event in own.job(job.id).metrics():
                    seen.append(event)

        subscriber = threading.Thread(target=subscribe)
        subscriber.start()
        cut_at = random.Random(seed).randrange(14, 60)
        wait_until(lambda: any(event.step >= cut_at for event in seen), f"step {cut_at}", 50)
        disk.power_cut(server)
        assert registered_checkpoints(disk.path, job.id) >= 1
        server.start()
        subscriber.join(50)
        assert not subscriber.is_alive()
        info = job.wait(timeout_s=50)
        assert info.state == "SUCCEEDED"
        assert info.attempt == 2
        assert [event.sequence for event in seen] == list(range(1, info.last_sequence + 1))
        assert seen == list(job.metrics()), "a number that was shown is never given to another event"
        rows = job.history(["gradient_norm"]).rows
        assert [row["step"] for row in rows] == list(range(1, info.progress.num_steps + 1))


def registered_checkpoints(data_dir: Path, train_job_id: str) -> int:
    """Verify every checkpoint that the database lists, and return how many there are."""

    async def count() -> int:
        store = Store.open(data_dir)
        known = await store.checkpoints.list(train_job_id)
        for checkpoint in known:
            checkpoints.verify(Path(checkpoint.directory))
        await store.close()
        return len(known)

    return asyncio.run(count())
