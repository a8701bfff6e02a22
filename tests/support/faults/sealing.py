"""A process that uploads images into tiny shards, which are closed and indexed, and a check of what it leaves."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from manyview_server.store.images import dataset_index, shard_index, shard_writers
from manyview_server.store.images.shards import SNAPSHOT_DTYPE, ShardReader, scan, shards_in
from manyview_server.store.records import CheckedImage
from manyview_server.store.store import Store
from support.service.harness import wait_until
from support.workers import program

SHARD_IMAGES = 4
BATCH_IMAGES = 3
NUM_BATCHES = 4


def images(batch: int) -> list[CheckedImage]:
    made = []
    for number in range(BATCH_IMAGES):
        data = f"image {batch} {number} ".encode() * 40
        sha256 = hashlib.sha256(data).digest()
        made.append(
            CheckedImage(data=data, key="", label=f"{number}", sha256=sha256, extension="jpg", width=4, height=3)
        )
    return made


def main() -> None:
    shard_writers.MAX_SHARD_IMAGES, dataset_index.CHUNK_ROWS = SHARD_IMAGES, BATCH_IMAGES
    asyncio.run(upload(Path(sys.argv[1])))


async def upload(data_dir: Path) -> None:
    """Upload what is not there yet, one batch after the other, and print the number of each that is acknowledged."""
    store = Store.open(data_dir, reserve_bytes=0)
    if not (await store.datasets.list(1))[0]:
        await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    print("ready", flush=True)
    sys.stdin.readline()
    for batch in range(session.upload.committed_number + 1, NUM_BATCHES + 1):
        await session.append(batch, images(batch))
        print(batch, flush=True)
    while store.uploads._indexing:
        await asyncio.gather(*store.uploads._indexing)
    await store.close()


class Sealing:
    """Such a process. It waits for `go`."""

    def __init__(self, data_dir: Path) -> None:
        command = program.command(__name__, str(data_dir))
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    @property
    def pid(self) -> int:
        return self._process.pid

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def wait(self) -> tuple[int, int]:
        """Wait for its end. Return its exit status, and the number of the last batch that was acknowledged."""
        assert self._process.stdout is not None
        with self._process:  # closes the pipes
            lines = self._process.stdout.read().split()
        return self._process.returncode, int(lines[-1]) if lines else 0

    def wait_until_stopped(self) -> None:
        """Wait until a signal has stopped the process, or it has ended."""
        wait_until(lambda: self._state() in "tTZ", "the process is stopped or done")

    def _state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def processes(self) -> list[int]:
        return [] if self._process.poll() is not None else [self.pid]

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def is_gone(self) -> bool:
        return self._process.poll() is not None


async def judge(data_dir: Path, acknowledged: int) -> None:
    """Every acknowledged image is there, once, with its bytes. Index files and snapshots say what the database says."""
    store = Store.open(data_dir, reserve_bytes=0)
    sql = "SELECT image_id, shard, offset, length, label, width, height FROM image ORDER BY position"
    known = await store._database.read(lambda c: np.array(c.execute(sql).fetchall(), SNAPSHOT_DTYPE))
    directory = store.datasets.directory((await store.datasets.get("a")).uid)
    files = {shard for shard in shards_in(directory) if shard_index.index_path(directory, shard).exists()}
    rows = (await store.datasets.snapshot("a")).rows.all()
    assert np.array_equal(rows, known)
    sealed = set(range(int(known["shard"].max()))) if len(known) else set()
    assert files <= sealed
    assert {shard for shard in shards_in(directory) if shard_index.index_path(directory, shard).exists()} == sealed
    for shard in sealed:
        one = shard_index.verified(directory, shard)
        assert np.array_equal(shard_index.read(directory, shard, one.first, one.end), known[one.first : one.end])
    expected = [image for batch in range(1, NUM_BATCHES + 1) for image in images(batch)][: len(rows)]
    assert len(rows) >= BATCH_IMAGES * acknowledged
    reader = ShardReader(directory)
    found = [reader.read(int(row["shard"]), int(row["offset"]), int(row["length"])) for row in rows]
    reader.close()
    assert found == [image.data for image in expected]
    in_shards = [image.image_id for path in shards_in(directory).values() for image in scan(path)]
    assert in_shards == rows["image_id"].tolist()
    await store.close()
