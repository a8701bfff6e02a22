from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manyview_server.errors import ResourceExhausted, Unavailable
from manyview_server.store.images import shards
from manyview_server.store.images.batch import chain
from manyview_server.store.images.shard_writers import START, ShardWriter
from manyview_server.store.images.shards import ShardReader
from manyview_server.store.jobs.job_verbs import CANCEL
from manyview_server.store.records import CheckedImage
from manyview_server.store.store import Store

MakeImage = Callable[..., CheckedImage]


async def test_a_full_disk_refuses_the_batch_and_leaves_no_trace_of_it(
    store: Store, image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = (await store.datasets.create("a")).uid
    session = await store.uploads.open("a", "u")
    await session.append(1, [image(1, label="cat")])
    path = shards.shard_path(store.datasets.directory(uid), 0)
    before = path.stat().st_size, await store.datasets.get("a"), await store.uploads.get("a", "u")

    def half(fd: int, pieces: Any, at: int) -> int:
        os.pwrite(fd, b"".join(pieces)[:300], at)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", half)
        with pytest.raises(ResourceExhausted) as caught:
            await session.append(2, [image(2, label="dog")])
    assert (caught.value.reason, caught.value.retry_after_s) == ("DISK_FULL", 30.0)
    assert before == (path.stat().st_size, await store.datasets.get("a"), await store.uploads.get("a", "u"))

    # There is room again, and the same stream continues without a restart.
    assert (await session.append(2, [image(2, label="dog")]))[0].outcome == "STORED"
    row = (await store.datasets.snapshot("a")).rows.all()[1]
    reader = ShardReader(store.datasets.directory(uid))
    assert reader.read(int(row["shard"]), int(row["offset"]), int(row["length"])) == image(2, label="dog").data
    reader.close()


async def test_a_disk_that_is_read_only_is_told_and_the_upload_goes_on_when_it_is_not(
    store: Store, image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = (await store.datasets.create("a")).uid
    session = await store.uploads.open("a", "u")
    await session.append(1, [image(1)])

    def refuse(*_: Any) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", refuse)
        patch.setattr(os, "truncate", refuse)
        with pytest.raises(Unavailable) as caught:
            await session.append(2, [image(2)])
    assert (caught.value.reason, caught.value.retry_after_s) == ("STORE_UNAVAILABLE", 5.0)
    await session.append(2, [image(3)])
    array = (await store.datasets.snapshot("a")).rows.all()
    found = list(shards.scan(shards.shard_path(store.datasets.directory(uid), 0)))
    assert [one.image_id for one in found] == list(array["image_id"])


async def test_bytes_are_synced_before_the_rows_are_committed_and_both_before_the_answer(
    store: Store, image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real_write, real_sync = os.pwritev, os.fdatasync

    def write(fd: int, pieces: Any, at: int) -> int:
        order.append("write")
        return real_write(fd, pieces, at)

    def sync(fd: int) -> None:
        real_sync(fd)
        order.append("sync")

    await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    monkeypatch.setattr(os, "pwritev", write)
    monkeypatch.setattr(os, "fdatasync", sync)
    await store.uploads._database.read(
        lambda c: c.set_trace_callback(lambda sql: order.append(sql) if sql in ("BEGIN IMMEDIATE", "COMMIT") else None)
    )
    await session.append(1, [image(1), image(2)])
    order.append("answer")
    assert order == ["BEGIN IMMEDIATE", "write", "sync", "COMMIT", "answer"]


async def test_uploads_stop_before_the_disk_is_full_and_everything_else_goes_on(
    tmp_path: Path, image: MakeImage
) -> None:
    store = Store.open(tmp_path, reserve_bytes=1 << 60)
    await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    with pytest.raises(ResourceExhausted, match="disk is full"):
        await session.append(1, [image(1)])
    await store.jobs.create("j", "a", "simclr", {}, "0")
    await store.jobs.request("j", CANCEL)
    await store.jobs.delete("j")
    await store.datasets.delete("a")
    await store.close()


async def test_images_go_on_in_the_next_shard_when_one_is_full(
    store: Store, image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShardWriter.__init__, "__defaults__", (START, 20_000))
    uid = (await store.datasets.create("a")).uid
    session = await store.uploads.open("a", "u")
    for number in range(1, 8):
        await session.append(number, [image(10 * number + i, num_bytes=3000) for i in range(5)])
    array = (await store.datasets.snapshot("a")).rows.all()
    assert array["shard"].max() > 3
    reader = ShardReader(store.datasets.directory(uid))
    for number, row in enumerate(array):
        expected = image(10 * (number // 5 + 1) + number % 5, num_bytes=3000).data
        assert reader.read(int(row["shard"]), int(row["offset"]), int(row["length"])) == expected
    reader.close()


async def test_the_index_can_be_rebuilt_from_the_shards(store: Store, image: MakeImage) -> None:
    uid = (await store.datasets.create("a")).uid
    session = await store.uploads.open("a", "u")
    await session.append(1, [image(1, label="cat"), image(2, key="å/ä.jpg")])
    path = shards.shard_path(store.datasets.directory(uid), 0)
    found = list(shards.scan(path))
    array = (await store.datasets.snapshot("a")).rows.all()
    assert [(f.image_id, f.offset, f.length) for f in found] == [
        (int(r["image_id"]), int(r["offset"]), int(r["length"])) for r in array
    ]
    second = image(2, key="å/ä.jpg")
    expected = {"sha256": second.sha256.hex(), "key": "å/ä.jpg", "label": "", "width": 4, "height": 3}
    assert found[1].meta == expected


def test_the_digest_is_chained_image_by_image(image: MakeImage) -> None:
    one, two = image(1), image(2)
    expected = hashlib.sha256(hashlib.sha256(one.sha256).digest() + two.sha256).digest()
    assert chain(b"", [one, two]) == chain(chain(b"", [one]), [two]) == expected


# The disk refuses to sync an image: the process must end there, without an acknowledgement.
UNSYNCED = """
import asyncio, errno, hashlib, os, sys
from pathlib import Path
from manyview_server.store.images import shards
from manyview_server.store.records import CheckedImage
from manyview_server.store.store import Store

def refuse(fd):
    raise OSError(errno.EIO, "Input/output error")

async def main():
    store = Store.open(Path(sys.argv[1]), reserve_bytes=0)
    await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    shards.os.fdatasync = refuse
    image = CheckedImage(data=b"x", key="x", label="", sha256=hashlib.sha256(b"x").digest(), extension="png",
                         width=1, height=1)
    await session.append(1, [image])
    print("acknowledged", flush=True)

asyncio.run(main())
"""


async def test_a_refused_sync_ends_the_process_without_an_acknowledgement(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", UNSYNCED, str(tmp_path)], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (74, "")
    assert "sync failed" in done.stderr
    store = Store.open(tmp_path)
    assert (await store.datasets.get("a")).num_images == 0
    await store.close()
