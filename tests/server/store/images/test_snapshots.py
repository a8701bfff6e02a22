"""A snapshot as a reference gives the rows that it stands for."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview_server.errors import Unavailable
from manyview_server.store.images import shard_index
from manyview_server.store.images.shard_index import Rows
from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.store.images.snapshots import SnapshotRows


def dataset_rows(sizes: list[int]) -> Rows:
    """The rows of shards with these numbers of images."""
    made = np.zeros(sum(sizes), SNAPSHOT_DTYPE)
    made["image_id"] = np.arange(len(made)) + 1000
    made["label"] = np.arange(len(made)) % 5 - 1
    made["shard"] = np.repeat(np.arange(len(sizes)), sizes)
    return made


def reference(directory: Path, rows: Rows, sizes: list[int], first: int, last: int) -> SnapshotRows:
    """A snapshot of the rows `first` to `last`. The last shard is open, and the others have index files."""
    ends = list(itertools.accumulate(sizes))
    for shard, end in enumerate(ends[:-1]):
        shard_index.write(directory, end - sizes[shard], rows[end - sizes[shard] : end])
    used = [shard for shard, end in enumerate(ends[:-1]) if end > first and end - sizes[shard] < last]
    sealed_end = ends[used[-1]] if used else first
    return SnapshotRows(
        directory=directory,
        first=first,
        last=last,
        shards=np.array(used, np.int64),
        ends=np.array([ends[shard] for shard in used], np.int64),
        loose=rows[max(first, sealed_end) : max(last, sealed_end)],
    )


@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=6), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_part_of_any_snapshot_is_that_part_of_the_rows_also_on_the_other_side(
    sizes: list[int], data: st.DataObject
) -> None:
    rows = dataset_rows(sizes)
    first, start, stop, last = sorted(data.draw(st.lists(st.integers(0, len(rows)), min_size=4, max_size=4)))
    with tempfile.TemporaryDirectory() as directory:
        made = reference(Path(directory), rows, sizes, first, last)
        for snapshot in (made, SnapshotRows.received(directory, made.blobs)):
            assert len(snapshot) == last - first
            assert np.array_equal(snapshot.all(), rows[first:last])
            assert snapshot.column("label").tolist() == rows["label"][first:last].tolist()
        assert np.array_equal(made.between(start, stop), rows[start:stop])


def test_rows_alone_are_a_snapshot(tmp_path: Path) -> None:
    rows = dataset_rows([3])
    assert np.array_equal(SnapshotRows.received("", [rows.tobytes()]).all(), rows)
    assert SnapshotRows.of(rows).blobs == (rows.tobytes(),)


def test_the_message_of_many_shards_is_short(tmp_path: Path) -> None:
    shards = np.arange(1000, dtype=np.int64)
    loose = np.zeros(5, SNAPSHOT_DTYPE)
    last = 10_000_005
    rows = SnapshotRows(directory=tmp_path, first=0, last=last, shards=shards, ends=10_000 * (shards + 1), loose=loose)
    assert sum(map(len, rows.blobs)) == 5 * SNAPSHOT_DTYPE.itemsize + 8 * 2002


def test_a_file_that_is_damaged_after_the_snapshot_is_told_and_the_caller_may_try_again(tmp_path: Path) -> None:
    rows = dataset_rows([3, 3, 1])
    snapshot = reference(tmp_path, rows, [3, 3, 1], 0, 7)
    shard_index.index_path(tmp_path, 1).write_bytes(b"x")
    assert np.array_equal(snapshot.between(0, 3), rows[:3])
    for read in (snapshot.all, lambda: snapshot.column("label")):
        with pytest.raises(Unavailable) as caught:
            read()
        assert (caught.value.reason, caught.value.retry_after_s) == ("INDEX_DAMAGED", 1.0)
    shard_index.index_path(tmp_path, 1).unlink()
    with pytest.raises(Unavailable):
        snapshot.between(5, 7)
