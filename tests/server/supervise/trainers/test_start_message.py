"""The message that starts a trainer has what the server knows of the job."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from manyview_server.link.frames import MAX_BLOB_BYTES, PREFIX, decode, frame
from manyview_server.messages.timing import StepTimed, TimeStep
from manyview_server.store.images import shard_writers
from manyview_server.store.images.datasets import UNREADABLE_CHUNK_ROWS
from manyview_server.store.images.snapshots import SnapshotRows
from manyview_server.store.records import CheckedImage
from manyview_server.store.store import Store
from manyview_server.supervise.timers.step_times import StepTimes
from manyview_server.supervise.trainers import dataset_following
from manyview_server.supervise.trainers.crashing_images import CrashingImages
from manyview_server.supervise.trainers.start_message import start_message
from support.service.supervised import create

SETTINGS = {"backbone": "resnet9", "precision": "auto"}
IMAGES = """
    WITH RECURSIVE n(i) AS (SELECT 1001 UNION ALL SELECT i + 1 FROM n WHERE i < 1005 + :count)
    INSERT INTO image SELECT :pk, i, i << 32, 0, 0, 9, -1, 4, 3, :reason, 1, 1 FROM n
"""
UNREADABLE = """
    INSERT INTO unreadable SELECT dataset, position, :reason, 'because' FROM image
    WHERE dataset = :pk AND position > 1000 AND position <= 1000 + :count
"""
MORE_UNREADABLE = """
    INSERT INTO unreadable SELECT dataset, position, :reason, 'because' FROM image
    WHERE dataset = :pk AND position > 1000 + :count
"""
NUMERICS = {"precision": "bfloat16", "channels_last": True, "float32_products": "ieee"}


@pytest.mark.parametrize(("measured_on", "expected"), [("cpu", NUMERICS), ("cuda:0", {})])
async def test_a_trainer_is_told_the_number_format_that_was_measured_as_the_fastest(
    store: Any, tmp_path: Path, measured_on: str, expected: dict[str, Any]
) -> None:
    await create(store, settings=SETTINGS)
    times = StepTimes(tmp_path / "times.json", {})
    request = TimeStep(
        settings={**SETTINGS, "epochs": 3},
        num_images=9,
        decode_size=64,
        device=measured_on,
        num_threads=2,
        limit_s=1,
    )
    times.keep(request, StepTimed(batch_size=8, step_s=0.1, embed_s=0.1, decode_s=0.1, numerics=NUMERICS))
    message = await start_message(
        store,
        await store.jobs.get("job"),
        None,
        CrashingImages(store),
        device="cpu",
        num_threads=2,
        cache_bytes=1,
        step_times=times,
    )
    assert message.numerics == expected
    assert message.planned_image_s == (pytest.approx(0.1 / 8) if expected else 0)


async def test_a_job_starts_on_a_data_set_of_which_200_000_images_must_not_be_decoded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(store)
    job, count = await store.jobs.get("job"), 200_000

    def mark(connection: sqlite3.Connection) -> None:
        (pk,) = connection.execute("SELECT pk FROM dataset WHERE uid = ?", (job.dataset_uid,)).fetchone()
        for sql, reason in ((IMAGES, ""), (UNREADABLE, "DECODER_CRASHED"), (MORE_UNREADABLE, "DECODE_TOO_SLOW")):
            connection.execute(sql, {"pk": pk, "count": count, "reason": reason})

    await store._database.write(mark)
    visits, read = [], store._database.read

    async def counted(fn: Any) -> Any:
        found = await read(fn)
        visits.append(len(found) if isinstance(found, list) else 0)
        return found

    monkeypatch.setattr(store._database, "read", counted)
    message = await start_message(store, job, None, CrashingImages(store), device="cpu", num_threads=2, cache_bytes=1)
    assert (len(message.quarantined), len(message.too_slow)) == (count, 5)
    assert sum(visits) == 2 * (count + 5)
    assert max(visits) == UNREADABLE_CHUNK_ROWS
    header, *blobs = frame(message, MAX_BLOB_BYTES)
    assert sum(map(len, blobs)) < 8 * count + 10_000
    assert decode(header[PREFIX.size :], b"".join(blobs)) == message


async def test_a_trainer_gets_the_rows_of_closed_shards_by_reference(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_writers, "MAX_SHARD_IMAGES", 2)
    session = await store.uploads.open("clothing", "more")
    for number in range(1, 7):
        await session.append(number, [image(number)])
    await create(store)
    job = await store.jobs.get("job")
    message = await start_message(store, job, None, CrashingImages(store), device="cpu", num_threads=2, cache_bytes=1)
    rows = SnapshotRows.received(message.dataset_dir, message.blobs)
    assert (len(rows), rows.ends.tolist(), len(rows.loose)) == (7, [2, 4, 6], 1)
    listed, _ = await store.datasets.images("clothing", (), 10)
    assert rows.all()["image_id"].tolist() == [one.image_id for one in listed]


async def test_images_that_are_added_are_told_by_reference(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_writers, "MAX_SHARD_IMAGES", 2)
    monkeypatch.setattr(dataset_following, "POLL_S", 0.01)
    await create(store)
    job = replace(await store.jobs.get("job"), num_images=1)
    session = await store.uploads.open("clothing", "more")
    for number in range(1, 5):
        await session.append(number, [image(number)])
    told: asyncio.Queue[Any] = asyncio.Queue()

    async def send(message: Any) -> bool:
        await told.put(message)
        return True

    sending = asyncio.create_task(dataset_following.send_added_images(store, job, send))
    added = await asyncio.wait_for(told.get(), 5)
    sending.cancel()
    rows = SnapshotRows.received(added.dataset_dir, added.blobs)
    assert (rows.first, rows.last, rows.ends.tolist(), len(rows.loose)) == (1, 5, [2, 4], 1)
    listed, _ = await store.datasets.images("clothing", (), 10)
    assert rows.all()["image_id"].tolist() == [one.image_id for one in listed[1:]]


def image(number: int) -> CheckedImage:
    data = f"image number {number}".encode()
    sha256 = hashlib.sha256(data).digest()
    return CheckedImage(data=data, key="", label="", sha256=sha256, extension="jpg", width=1, height=1)
