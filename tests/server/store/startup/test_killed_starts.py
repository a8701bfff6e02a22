"""A server that is killed again and again while it starts loses nothing that was acknowledged (F4)."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from manyview_server import failpoints
from manyview_server.store.images.shard_writers import END_OF_ARCHIVE, ShardWriter
from manyview_server.store.images.shards import Position, ShardReader, image_id_of, scan, shard_path
from manyview_server.store.records import CheckedImage
from manyview_server.store.store import Store

MakeImage = Callable[..., CheckedImage]

PLACES = ("opened", "set_aside", "swept", "recovered", "before_generation", "done")

# Opens the store and closes it.
SERVER = """
import asyncio, sys
from pathlib import Path
from manyview_server.store.store import Store

async def main():
    await Store.open(Path(sys.argv[1]), reserve_bytes=0).close()

asyncio.run(main())
"""


def start(data_dir: Path, points: Path) -> int:
    environment = os.environ | {failpoints.VARIABLE: str(points)}
    return subprocess.run([sys.executable, "-c", SERVER, str(data_dir)], env=environment, timeout=50).returncode


async def fill(data_dir: Path, images: list[CheckedImage]) -> str:
    store = Store.open(data_dir, reserve_bytes=0)
    dataset = await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    for number, image in enumerate(images, start=1):
        await session.append(number, [image])
    await store.datasets.create("deleted")
    await store.close()
    return dataset.uid


def write_what_a_crash_leaves(directory: Path, committed: Position) -> None:
    """Put a whole record and a torn one after the committed end, and the first record into the next shard."""
    for start, count in ((committed, 2), (Position(1, 0), 1)):
        writer = ShardWriter(directory, start)
        for number in range(count):
            data = f"never acknowledged {start.shard} {number}".encode() * 20
            digest = hashlib.sha256(data).digest()
            writer.append(image_id_of(digest), "jpg", data, {"sha256": digest.hex()})
        writer.sync()
        writer.close()
    path = shard_path(directory, 0)
    os.truncate(path, path.stat().st_size - 700)


async def stored(data_dir: Path, uid: str) -> list[bytes]:
    """Return the bytes of every image that the data set lists."""
    store = Store.open(data_dir, reserve_bytes=0)
    reader = ShardReader(store.datasets.directory(uid))
    rows = (await store.datasets.snapshot("a")).rows.all()
    found = [reader.read(int(row["shard"]), int(row["offset"]), int(row["length"])) for row in rows]
    reader.close()
    upload = await store.uploads.get("a", "u")
    assert upload.committed_number == upload.num_stored == len(found)
    await store.close()
    return found


@pytest.mark.parametrize("torn", [False, True])
def test_kills_at_every_point_of_a_start_one_after_the_other_lose_nothing_acknowledged(
    tmp_path: Path, image: MakeImage, torn: bool
) -> None:
    data_dir, points = tmp_path / "data", tmp_path / "points"
    points.mkdir()
    images = [image(number) for number in range(6)]
    uid = asyncio.run(fill(data_dir, images))
    path = shard_path(data_dir / "datasets" / uid, 0)
    committed = path.stat().st_size
    for place in PLACES:
        if torn:
            write_what_a_crash_leaves(path.parent, Position(0, committed))
        (points / f"store.start@{place}").write_text("kill")
        assert start(data_dir, points) == -signal.SIGKILL, place
        assert not list(points.iterdir()), "the point was reached"
    assert start(data_dir, points) == 0
    assert path.stat().st_size == committed
    assert asyncio.run(stored(data_dir, uid)) == [one.data for one in images]
    assert not (path.parent / "shard-00000001.tar").exists()
    aside = list((data_dir / "set-aside").rglob("*.tar")) if torn else []
    assert (len(aside) > 0) == torn
    assert all(len(list(scan(shard))) == 1 for shard in aside)


def test_a_deletion_that_is_interrupted_at_every_point_of_a_start_ends_and_takes_nothing_else(
    tmp_path: Path, image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir, points = tmp_path / "data", tmp_path / "points"
    points.mkdir()
    images = [image(number) for number in range(3)]
    uid = asyncio.run(fill(data_dir, images))

    async def delete_without_sweeping() -> str:
        store = Store.open(data_dir, reserve_bytes=0)
        await (await store.uploads.open("deleted", "u")).append(1, [image(50)])
        gone = (await store.datasets.get("deleted")).uid

        async def dies() -> None:
            return None

        monkeypatch.setattr(store._deletions, "sweep", dies)
        await store.datasets.delete("deleted")
        await store.close()
        return gone

    gone = asyncio.run(delete_without_sweeping())
    assert (data_dir / "datasets" / gone / "shard-00000000.tar").exists()
    for place in PLACES:
        (points / f"store.start@{place}").write_text("kill")
        assert start(data_dir, points) == -signal.SIGKILL, place
    assert asyncio.run(stored(data_dir, uid)) == [one.data for one in images]
    assert [path.name for path in (data_dir / "datasets").iterdir()] == [uid]
    assert not (data_dir / "set-aside").exists()


def test_a_closed_shard_before_the_next_one_is_cut_back_to_its_committed_end(tmp_path: Path, image: MakeImage) -> None:
    """The crash came after the group had closed its shard."""
    uid = asyncio.run(fill(tmp_path, [image(1)]))
    path = shard_path(tmp_path / "datasets" / uid, 0)
    committed = path.stat().st_size
    write_what_a_crash_leaves(path.parent, Position(0, committed))
    with path.open("ab") as file:
        file.write(END_OF_ARCHIVE)
    assert asyncio.run(stored(tmp_path, uid)) == [image(1).data]
    assert path.stat().st_size == committed
