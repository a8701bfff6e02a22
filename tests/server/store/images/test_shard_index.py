"""The index file of one shard."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from manyview_server.store import array_file
from manyview_server.store.array_file import ArrayFileDamaged
from manyview_server.store.images import shard_index
from manyview_server.store.images.shard_index import Rows, index_path
from manyview_server.store.images.shards import SNAPSHOT_DTYPE


@pytest.fixture
def rows() -> Rows:
    """Seven rows of shard 3."""
    made = np.zeros(7, SNAPSHOT_DTYPE)
    made["image_id"], made["shard"], made["label"] = np.arange(100, 107), 3, np.arange(7) - 1
    made["offset"] = np.arange(7) << 33
    return made


def test_rows_come_back_by_their_positions(tmp_path: Path, rows: Rows) -> None:
    written = shard_index.write(tmp_path, 20, rows)
    found = shard_index.verified(tmp_path, 3)
    assert (found.shard, found.first, found.end, found.stamp) == (3, 20, 27, written.stamp)
    assert np.array_equal(found.outer_rows, rows[[0, 6]])
    for start in range(20, 27):
        for stop in range(start, 28):
            assert np.array_equal(shard_index.read(tmp_path, 3, start, stop), rows[start - 20 : stop - 20])
    for start, stop in ((19, 22), (26, 28), (0, 7), (27, 30)):
        with pytest.raises(ArrayFileDamaged, match="does not hold"):
            shard_index.read(tmp_path, 3, start, stop)


def test_every_flipped_bit_and_every_missing_byte_is_noticed(tmp_path: Path, rows: Rows) -> None:
    shard_index.write(tmp_path, 20, rows)
    path = index_path(tmp_path, 3)
    whole = path.read_bytes()
    for at in range(len(whole)):
        for damaged in (whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :], whole[:at]):
            path.write_bytes(damaged)
            with pytest.raises(ArrayFileDamaged):
                shard_index.verified(tmp_path, 3)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        shard_index.verified(tmp_path, 3)


def test_a_file_of_something_else_is_none(tmp_path: Path, rows: Rows) -> None:
    others: list[tuple[dict[str, object], dict[str, np.ndarray]]] = [
        ({}, {"rows": rows}),
        ({"first": "20"}, {"rows": rows}),
        ({"first": 20}, {}),
        ({"first": 20}, {"rows": np.arange(7)}),
        ({"first": 20}, {"rows": rows[:0]}),
        ({"first": 20}, {"rows": rows.reshape(7, 1)}),
    ]
    for meta, arrays in others:
        array_file.write(index_path(tmp_path, 3), meta, arrays)
        with pytest.raises(ArrayFileDamaged):
            shard_index.verified(tmp_path, 3)
    shard_index.write(tmp_path, 20, rows)
    os.rename(index_path(tmp_path, 3), index_path(tmp_path, 4))
    with pytest.raises(ArrayFileDamaged, match="another shard"):
        shard_index.verified(tmp_path, 4)


def test_files_of_later_shards_and_unfinished_ones_are_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = ["shard-00000001.idx", "shard-00000005.tar", "shard-00000009.idx.bak", "shard-9.idx", "notes-12345678.tmp"]
    gone = ["shard-00000002.idx", "shard-00000007.idx", "shard-00000001.idx-0123abcd.tmp"]
    for name in (*kept, *gone):
        (tmp_path / name).touch()
    shard_index.remove_from(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    shard_index.remove_from(tmp_path / "missing", 0)
