from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from manyview_server.store.images.shards import ShardReader, image_id_of, shard_path
from manyview_server.store.records import CheckedImage
from manyview_server.store.store import Store
from manyview_server.store.unusable import StoreCorrupt, StoreLocked, StoreTooNew

MakeImage = Callable[..., CheckedImage]

# Uploads from two sessions and says what was acknowledged. With a number N it kills itself, without warning,
# at the Nth call that touches the disk for an image.
UPLOADER = """
import asyncio, hashlib, os, signal, sys
from pathlib import Path
from manyview_server.store.images import shards
from manyview_server.store.records import CheckedImage
from manyview_server.store.store import Store

calls, kill_at = 0, int(sys.argv[2])

def counted(real):
    def call(*args):
        global calls
        calls += 1
        if calls == kill_at:
            if real is os.pwritev or real.__name__ == "pwritev":
                real(args[0], [b"".join(args[1])[:700]], args[2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)
    return call

def image(name, n):
    data = f"{name} {n} ".encode() * 200
    return CheckedImage(data=data, key=f"{name}/{n}", label="", sha256=hashlib.sha256(data).digest(),
                        extension="png", width=1, height=1)

async def upload(store, name):
    session = await store.uploads.open("a", name)
    number = session.upload.committed_number + 1
    while number <= 400:
        images = [image(name, 5 * number + i) for i in range(5)]
        await session.append(number, images)
        print(name, number, *(one.sha256.hex() for one in images), flush=True)
        number += 1

async def main():
    store = Store.open(Path(sys.argv[1]), reserve_bytes=0)
    for name in ("pwritev", "fdatasync", "fsync"):
        setattr(shards.os, name, counted(getattr(os, name)))
    await asyncio.gather(upload(store, "x"), upload(store, "y"))
    await store.close()

asyncio.run(main())
"""


async def check_nothing_acknowledged_is_lost(data_dir: Path, acknowledged: list[str]) -> None:
    store = Store.open(data_dir, reserve_bytes=0)
    dataset = await store.datasets.get("a")
    array = (await store.datasets.snapshot("a")).rows.all()
    reader = ShardReader(store.datasets.directory(dataset.uid))
    stored = []
    for row in array:
        digest = hashlib.sha256(reader.read(int(row["shard"]), int(row["offset"]), int(row["length"]))).digest()
        assert image_id_of(digest) == row["image_id"]
        stored.append(digest.hex())
    reader.close()
    assert len(stored) == len(set(stored)) == dataset.num_images
    for line in acknowledged:
        name, number, *digests = line.split()
        assert set(digests) <= set(stored)
        assert (await store.uploads.get("a", name)).committed_number >= int(number)
    await store.close()


async def prepare(data_dir: Path) -> None:
    store = Store.open(data_dir, reserve_bytes=0)
    await store.datasets.create("a")
    await store.close()


def run_uploader(data_dir: Path, kill_at: int, kill_after_s: float | None = None) -> list[str]:
    """Return the lines that were acknowledged before the kill. A truncated line does not count."""
    command = [sys.executable, "-c", UPLOADER, str(data_dir), str(kill_at)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()] if kill_after_s is not None else []
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            process.kill()
        lines += process.stdout.readlines()
    assert process.returncode == -signal.SIGKILL
    return [line for line in lines if line.endswith("\n")]


@pytest.mark.parametrize("kill_at", [1, 2, 3, 4, 5, 8])
def test_a_kill_at_any_call_to_the_disk_loses_nothing_acknowledged(tmp_path: Path, kill_at: int) -> None:
    asyncio.run(prepare(tmp_path))
    acknowledged = run_uploader(tmp_path, kill_at)
    asyncio.run(check_nothing_acknowledged_is_lost(tmp_path, acknowledged))


def test_kills_at_random_moments_and_resuming_lose_nothing_acknowledged(tmp_path: Path) -> None:
    asyncio.run(prepare(tmp_path))
    moments, acknowledged = random.Random(0), []
    for _ in range(3):
        acknowledged += run_uploader(tmp_path, 0, moments.uniform(0.0, 0.2))
        asyncio.run(check_nothing_acknowledged_is_lost(tmp_path, acknowledged))
    assert len(acknowledged) >= 3


async def test_a_torn_tail_is_cut_off_and_the_upload_goes_on(tmp_path: Path, image: MakeImage) -> None:
    store = Store.open(tmp_path, reserve_bytes=0)
    uid = (await store.datasets.create("a")).uid
    session = await store.uploads.open("a", "u")
    await session.append(1, [image(1)])
    path = shard_path(store.datasets.directory(uid), 0)
    await store.close()
    committed = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"torn" * 400)
    store = Store.open(tmp_path, reserve_bytes=0)
    assert path.stat().st_size == committed
    session = await store.uploads.open("a", "u")
    await session.append(2, [image(2)])
    row = (await store.datasets.snapshot("a")).rows.all()[1]
    reader = ShardReader(store.datasets.directory(uid))
    assert reader.read(int(row["shard"]), int(row["offset"]), int(row["length"])) == image(2).data
    reader.close()
    await store.close()


async def test_a_shard_that_lost_bytes_does_not_stop_the_start(
    tmp_path: Path, image: MakeImage, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store.open(tmp_path, reserve_bytes=0)
    uid = (await store.datasets.create("a")).uid
    await (await store.uploads.open("a", "u")).append(1, [image(1), image(2)])
    directory = store.datasets.directory(uid)
    first, second = (await store.datasets.snapshot("a")).rows.all()
    await store.close()
    os.truncate(shard_path(directory, 0), int(second["offset"]) + 10)
    store = Store.open(tmp_path, reserve_bytes=0)
    assert "images are lost" in caplog.text
    listed, _ = await store.datasets.images("a", ["UNREADABLE"], 10)
    assert [(one.image_id, one.reason) for one in listed] == [(second["image_id"], "BYTES_LOST")]
    assert (await store.datasets.get("a")).num_unreadable == 1
    await (await store.uploads.open("a", "u")).append(2, [image(3)])
    third = (await store.datasets.snapshot("a")).rows.all()[2]
    assert (third["shard"], first["shard"]) == (1, 0)
    await store.close()


async def test_opening_looks_at_tails_only_whatever_the_size(tmp_path: Path) -> None:
    store = Store.open(tmp_path, reserve_bytes=0)
    uid = (await store.datasets.create("a")).uid
    directory = store.datasets.directory(uid)
    await store.close()
    connection = sqlite3.connect(tmp_path / "manyview.sqlite")
    rows = ((1, n, n * 7919, n // 100_000, n * 2048, 1000, -1, 8, 8, str(n), 1, 1) for n in range(1, 100_001))
    connection.executemany("INSERT INTO image VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    connection.execute("UPDATE dataset SET num_images = 100000, shard = 1, shard_bytes = 1024")
    connection.commit()
    connection.close()
    # Files with holes: their size is that of real ones, and reading them through would take its time.
    for shard, size in ((0, 1 << 30), (1, 1 << 30)):
        with shard_path(directory, shard).open("wb") as file:
            file.truncate(size)
    start = time.perf_counter()
    store = Store.open(tmp_path, reserve_bytes=0)
    assert time.perf_counter() - start < 1.0
    assert shard_path(directory, 1).stat().st_size == 1024
    await store.close()


def bytes_read() -> int:
    """Return the bytes that this process has read with system calls, from the disk or from the page cache."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


async def bytes_read_at_a_start(folder: Path, image: MakeImage, num_images: int) -> int:
    """Return the bytes that a start after a crash reads, for a data set of real rows and shards.

    The log that SQLite reads once is not counted.
    """
    store = Store.open(folder / "data", reserve_bytes=0)
    await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    batches = [[image(n, label=f"class {n % 100}") for n in range(k, k + 250)] for k in range(0, num_images, 250)]
    for first in range(0, len(batches), 8):
        group = enumerate(batches[first : first + 8], start=first + 1)
        await asyncio.gather(*(session.append(number, batch) for number, batch in group))
    # A killed server closes nothing.
    shutil.copytree(folder / "data", folder / "crashed")
    await store.close()
    log_bytes = (folder / "crashed" / "manyview.sqlite-wal").stat().st_size
    # SQLite reads its log once to recover, and once more when it empties it: that is not asked here.
    with closing(sqlite3.connect(folder / "crashed" / "manyview.sqlite")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = bytes_read()
    store = Store.open(folder / "crashed", reserve_bytes=0)
    read = bytes_read() - before
    assert (await store.datasets.get("a")).num_images == num_images
    await store.close()
    assert log_bytes < 8 << 20, "the log is emptied into the database as it grows"
    return read


async def test_a_start_reads_no_more_of_many_images_than_of_few(tmp_path: Path, image: MakeImage) -> None:
    few = await bytes_read_at_a_start(tmp_path / "few", image, 2_000)
    many = await bytes_read_at_a_start(tmp_path / "many", image, 20_000)
    assert many - few < 256 << 10, "of 40 MB of shards and 4 MB of rows"


async def test_a_data_directory_has_one_server(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    with pytest.raises(StoreLocked, match="in use"):
        Store.open(tmp_path)
    await store.close()
    await Store.open(tmp_path).close()


async def test_a_database_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    await Store.open(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "manyview.sqlite")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StoreTooNew, match="99"):
        Store.open(tmp_path)


async def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    await Store.open(tmp_path).close()
    path = tmp_path / "manyview.sqlite"
    path.write_bytes(b"not a database" + path.read_bytes()[14:])
    with pytest.raises(StoreCorrupt, match="cannot be read"):
        Store.open(tmp_path)
    assert path.read_bytes().startswith(b"not a database")


async def test_everything_is_private_to_the_servers_user(tmp_path: Path, image: MakeImage) -> None:
    store = Store.open(tmp_path / "data", reserve_bytes=0)
    await store.datasets.create("a")
    await (await store.uploads.open("a", "u")).append(1, [image(1)])
    for path in [tmp_path / "data", *(tmp_path / "data").rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    await store.close()


async def test_what_waits_is_durable_after_closing(tmp_path: Path, image: MakeImage) -> None:
    store = Store.open(tmp_path, reserve_bytes=0)
    await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    sending = [asyncio.create_task(session.append(n, [image(n)])) for n in (1, 2, 3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*sending)
    store = Store.open(tmp_path, reserve_bytes=0)
    assert (await store.uploads.get("a", "u")).committed_number == 3
    await store.close()
