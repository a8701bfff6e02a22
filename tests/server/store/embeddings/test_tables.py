from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manyview_server.store.embeddings import tables
from manyview_server.store.embeddings.tables import EmbeddingTable, RowError, Segment, SegmentDamaged

IDS = np.arange(100, 110)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "SEGMENT_ROWS", 4)


@pytest.fixture
def table(tmp_path: Path) -> EmbeddingTable:
    """Ten rows of two features in three segments, row 5 without an embedding."""
    made = EmbeddingTable(tmp_path)
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    rows[5] = np.nan
    for first in (0, 4, 8):
        errors = (RowError(row=1, reason="DECODE_FAILED", message="torn"),) if first == 4 else ()
        part = slice(first, first + 4)
        made.write(Segment(first=first, rows=rows[part], errors=errors), IDS[part])
    return made


def test_rows_come_back_by_segment_and_for_every_version(table: EmbeddingTable) -> None:
    for version in range(1, 11):
        whole = list(table.read_all(version))
        assert sum(len(segment.rows) for segment in whole) == version
        assert [segment.first for segment in whole] == [first for first in (0, 4, 8) if first < version]
    assert list(table.read_all(6))[1].errors == (RowError(row=1, reason="DECODE_FAILED", message="torn"),)
    assert list(table.read_all(5))[1].errors == ()


def test_what_is_held_is_counted_by_the_images_that_it_is_of(table: EmbeddingTable) -> None:
    assert table.count_held(IDS) == [4, 4, 2]
    assert table.count_held(IDS[:6]) == [4, 2]
    assert table.count_held(np.arange(100, 115)) == [4, 4, 2, 0]
    others = IDS.copy()
    others[6] = 7
    assert table.count_held(others) == [4, 0, 2]


def test_rows_without_an_embedding_are_listed(table: EmbeddingTable) -> None:
    assert table.unreadable(10).tolist() == [5]
    assert table.unreadable(5).tolist() == []


def test_a_damaged_segment_is_named_and_counts_as_missing(table: EmbeddingTable) -> None:
    path = table.directory / "segment-00000001"
    whole = path.read_bytes()
    path.write_bytes(whole[:-50] + b"x" + whole[-49:])
    assert table.count_held(IDS) == [4, 4, 2], "by its header"
    with pytest.raises(SegmentDamaged) as caught:
        list(table.read_all(10))
    assert caught.value.index == 1
    path.write_bytes(whole[:-1])
    assert table.count_held(IDS) == [4, 0, 2]
    with pytest.raises(SegmentDamaged):
        table.unreadable(10)
    table.drop(1)
    table.drop(1)
    assert table.count_held(IDS) == [4, 0, 2]
    with pytest.raises(SegmentDamaged, match="segment 1"):
        table.unreadable(10)


def test_a_segment_that_is_too_short_for_a_version_is_damaged(table: EmbeddingTable) -> None:
    with pytest.raises(SegmentDamaged, match="but the length must be 3"):
        list(table.read_all(11))
