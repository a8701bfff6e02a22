from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from manyview_server.store import durable_files
from manyview_server.store.images import shards as shards_module
from manyview_server.store.images.shard_writers import ShardWriter
from manyview_server.store.images.shards import Position, ShardReader, image_id_of, recover, scan, shard_path, shards_in
from support.service.descriptors import open_files


def write(writer: ShardWriter, *payloads: bytes) -> list[Position]:
    places = []
    for data in payloads:
        digest = hashlib.sha256(data).digest()
        places.append(writer.append(image_id_of(digest), "jpg", data, {"sha256": digest.hex(), "key": "ключ"}))
    return places


def test_a_shard_is_a_tar_file_in_webdataset_form(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path)
    write(writer, b"first", b"second" * 200)
    writer.sync()
    writer.close()
    with tarfile.open(shard_path(tmp_path, 0)) as tar:
        names = tar.getnames()
        stem = f"{image_id_of(hashlib.sha256(b'first').digest()):016x}"
        assert names[:2] == [f"{stem}.jpg", f"{stem}.json"]
        first = tar.extractfile(names[0])
        meta = tar.extractfile(names[1])
        assert first is not None
        assert first.read() == b"first"
        assert meta is not None
        assert json.load(meta) == {"sha256": hashlib.sha256(b"first").hexdigest(), "key": "ключ"}
        assert len(names) == 4


def test_images_read_back_from_their_places(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path)
    payloads = [bytes([i]) * (i * 300) for i in range(1, 9)]
    places = write(writer, *payloads)
    writer.sync()
    reader = ShardReader(tmp_path)
    assert [reader.read(*p, len(d)) for p, d in zip(places, payloads, strict=True)] == payloads
    reader.close()
    writer.close()


def test_reading_past_the_end_says_so(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path)
    (place,) = write(writer, b"short")
    writer.sync()
    writer.close()
    reader = ShardReader(tmp_path)
    with pytest.raises(EOFError, match="shard 0"):
        reader.read(place.shard, place.offset, 10_000)
    with pytest.raises(FileNotFoundError):
        reader.read(7, 0, 1)
    reader.close()


def test_a_full_shard_is_ended_and_the_next_begun(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, roll_bytes=5000)
    payloads = [bytes([i]) * 700 for i in range(10)]
    places = write(writer, *payloads)
    writer.sync()
    assert len({place.shard for place in places}) > 2
    for shard in {place.shard for place in places}:
        with tarfile.open(shard_path(tmp_path, shard)) as tar:
            assert len(tar.getnames()) == 2 * sum(place.shard == shard for place in places)
    reader = ShardReader(tmp_path)
    assert [reader.read(*p, 700) for p in places] == payloads
    reader.close()
    writer.close()


def test_a_rollback_removes_what_was_not_committed_across_shards(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, roll_bytes=5000)
    write(writer, b"kept")
    writer.sync()
    writer.commit()
    before = writer.position
    write(writer, *(bytes([i]) * 700 for i in range(10)))
    writer.sync()
    assert writer.position.shard > 0
    writer.rollback()
    assert writer.position == before
    assert os.listdir(tmp_path) == ["shard-00000000.tar"]
    assert shard_path(tmp_path, 0).stat().st_size == before.offset
    (again,) = write(writer, b"after")
    writer.sync()
    writer.close()
    reader = ShardReader(tmp_path)
    assert reader.read(*again, 5) == b"after"
    reader.close()


def test_what_a_rollback_could_not_remove_is_cut_off_by_the_next_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = ShardWriter(tmp_path)
    write(writer, b"kept")
    writer.sync()
    writer.commit()
    write(writer, b"taken back" * 500)
    writer.sync()

    def refuse(path: Path, length: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "truncate", refuse)
        with pytest.raises(OSError, match="Read-only"):
            writer.rollback()
    write(writer, b"after")
    writer.sync()
    writer.close()
    assert len(list(scan(shard_path(tmp_path, 0)))) == 2
    assert shard_path(tmp_path, 0).stat().st_size == writer.position.offset


def test_recovery_cuts_off_a_torn_tail_and_leaves_later_shards_to_the_survey(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path)
    write(writer, b"kept")
    writer.sync()
    writer.close()
    committed = writer.position
    with shard_path(tmp_path, 0).open("ab") as file:
        file.write(b"half a record")
    shard_path(tmp_path, 1).write_bytes(b"never committed")
    assert recover(tmp_path, committed) == committed
    assert shard_path(tmp_path, 0).stat().st_size == committed.offset
    assert shard_path(tmp_path, 1).read_bytes() == b"never committed"


def test_only_files_with_the_name_of_a_shard_are_shards(tmp_path: Path) -> None:
    names = ["shard-00000010.tar", "shard-00000002.tar", "shard-copy.tar", "shard-1.tar", "shard-00000001.tar.bak"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "shard-00000003.tar").mkdir()
    (tmp_path / "shard-00000004.tar").symlink_to(tmp_path / "shard-00000002.tar")
    assert list(shards_in(tmp_path).items()) == [(2, shard_path(tmp_path, 2)), (10, shard_path(tmp_path, 10))]
    assert shards_in(tmp_path / "missing") == {}


def test_recovery_leaves_a_shard_that_lost_bytes_and_goes_on_in_the_next(tmp_path: Path) -> None:
    shard_path(tmp_path, 0).write_bytes(b"x" * 100)
    assert recover(tmp_path, Position(0, 5000)) == Position(1, 0)
    assert shard_path(tmp_path, 0).stat().st_size == 100


def test_a_scan_finds_the_complete_images_up_to_the_damage(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path)
    payloads = [bytes([i]) * 700 for i in range(4)]
    places = write(writer, *payloads)
    writer.sync()
    writer.close()
    found = list(scan(shard_path(tmp_path, 0)))
    assert [image.offset for image in found] == [place.offset for place in places]
    assert [image.image_id for image in found] == [image_id_of(hashlib.sha256(d).digest()) for d in payloads]
    assert found[-1].end == writer.position.offset
    assert list(scan(shard_path(tmp_path, 0), found[1].end)) == found[2:]
    os.truncate(shard_path(tmp_path, 0), found[2].end + 900)
    assert [image.offset for image in scan(shard_path(tmp_path, 0))] == [place.offset for place in places[:3]]


def test_a_short_write_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, pieces, at: real(fd, [b"".join(pieces)[:700]], at))
    writer = ShardWriter(tmp_path)
    places = write(writer, b"a" * 2000, b"b" * 2000)
    writer.sync()
    writer.close()
    reader = ShardReader(tmp_path)
    assert [reader.read(*place, 2000) for place in places] == [b"a" * 2000, b"b" * 2000]
    reader.close()


def test_a_failed_sync_is_told_apart_from_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    writer = ShardWriter(tmp_path)
    write(writer, b"data")
    monkeypatch.setattr(os, "fdatasync", refuse)
    with pytest.raises(durable_files.SyncFailed):
        writer.sync()
    writer.close()


def test_image_ids_are_the_first_63_bits_of_the_digest() -> None:
    digest = bytes.fromhex("ff" * 32)
    assert image_id_of(digest) == 2**63 - 1
    assert f"{image_id_of(bytes.fromhex('8000000000000003' + '00' * 24)):016x}" == "4000000000000001"


def test_few_files_stay_open_and_none_is_closed_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "MAX_OPEN_SHARDS", 3)
    for shard in range(9):
        shard_path(tmp_path, shard).write_bytes(b"%d" % shard * 1000)
    reader = ShardReader(tmp_path)
    for shard in (*range(9), 8, 7, 6, 0):
        assert reader.read(shard, 10, 5) == b"%d" % shard * 5
        assert len(open_files(tmp_path)) <= 3
    assert list(reader._open) == [7, 6, 0], "those that were used last"
    with reader._opened(1) as fd:
        for shard in range(2, 9):
            reader.read(shard, 0, 1)
        assert os.pread(fd, 3, 0) == b"111"
    reader.close()
    assert not open_files(tmp_path)


def test_readers_on_many_threads_share_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "MAX_OPEN_SHARDS", 2)
    for shard in range(20):
        shard_path(tmp_path, shard).write_bytes(b"%02d" % shard * 500)
    reader = ShardReader(tmp_path)

    def read(number: int) -> bool:
        shard = number * 7 % 20
        return reader.read(shard, 100, 40) == b"%02d" % shard * 20

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(2000)))
    reader.read(0, 0, 1)
    assert len(open_files(tmp_path)) <= 3
    reader.close()
    assert not open_files(tmp_path)


MANY_SHARDS = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from manyview_server.store.images import shard_index
from manyview_server.store.images.shards import SNAPSHOT_DTYPE, ShardReader, shard_path
from manyview_server.store.images.snapshots import SnapshotRows

resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
directory, count = Path(sys.argv[1]), 2000
for shard in range(count):
    shard_path(directory, shard).write_bytes(b"%04d" % shard)
    row = np.zeros(1, SNAPSHOT_DTYPE)
    row["shard"], row["length"] = shard, 4
    shard_index.write(directory, shard, row)
numbers = np.arange(count)
none = np.empty(0, SNAPSHOT_DTYPE)
rows = SnapshotRows(directory=directory, first=0, last=count, shards=numbers, ends=numbers + 1, loose=none).all()
reader = ShardReader(directory)
with ThreadPoolExecutor(8) as threads:
    found = list(threads.map(lambda row: reader.read(int(row["shard"]), 0, int(row["length"])), rows))
assert found == [b"%04d" % shard for shard in range(count)]
"""


def test_two_thousand_shards_can_be_read_with_five_hundred_descriptors(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MANY_SHARDS, str(tmp_path)], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
