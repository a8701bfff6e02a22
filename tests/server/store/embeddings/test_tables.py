from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from manyview_server.store import array_file
from manyview_server.store.embeddings import tables
from manyview_server.store.embeddings.tables import EmbeddingTable, RowError, Segment, SegmentDamaged

IDS = np.arange(100, 110)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "SEGMENT_ROWS", 4)
    monkeypatch.setattr(tables, "IDS_AT_ONCE", 8)


def held(table: EmbeddingTable, image_ids: np.ndarray) -> list[int]:
    return table.count_held(len(image_ids), lambda start, stop: image_ids[start:stop])


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
    assert held(table, IDS) == [4, 4, 2]
    assert held(table, IDS[:6]) == [4, 2]
    assert held(table, np.arange(100, 115)) == [4, 4, 2, 0]
    others = IDS.copy()
    others[6] = 7
    assert held(table, others) == [4, 0, 2]


def test_rows_without_an_embedding_are_listed(table: EmbeddingTable) -> None:
    assert table.unreadable(10).tolist() == [5]
    assert table.unreadable(5).tolist() == []


def test_a_damaged_segment_is_named_and_counts_as_missing(table: EmbeddingTable) -> None:
    path = table.directory / "segment-00000001"
    whole = path.read_bytes()
    path.write_bytes(whole[:-50] + b"x" + whole[-49:])
    assert held(table, IDS) == [4, 4, 2], "by its header"
    with pytest.raises(SegmentDamaged) as caught:
        list(table.read_all(10))
    assert caught.value.index == 1
    path.write_bytes(whole[:-1])
    assert held(table, IDS) == [4, 0, 2]
    with pytest.raises(SegmentDamaged):
        table.unreadable(10)
    table.drop(1)
    table.drop(1)
    assert held(table, IDS) == [4, 0, 2]
    with pytest.raises(SegmentDamaged, match="segment 1"):
        table.unreadable(10)


def test_a_segment_that_is_too_short_for_a_version_is_damaged(table: EmbeddingTable) -> None:
    with pytest.raises(SegmentDamaged, match="but the length must be 3"):
        list(table.read_all(11))


@pytest.fixture
def packed(table: EmbeddingTable, monkeypatch: pytest.MonkeyPatch) -> EmbeddingTable:
    """The same ten rows: a block of two segments, and a segment."""
    monkeypatch.setattr(tables, "BLOCK_SEGMENTS", 2)
    table.pack(1)
    table.pack(0)
    return table


def files(table: EmbeddingTable) -> list[str]:
    return sorted(path.name for path in table.directory.iterdir())


def test_complete_segments_become_one_file_with_the_same_rows(packed: EmbeddingTable) -> None:
    assert files(packed) == ["block-00000000", "segment-00000002"]
    whole = list(packed.read_all(10))
    assert [segment.first for segment in whole] == [0, 4, 8]
    expected = np.arange(20, dtype=np.float32).reshape(10, 2)
    expected[5] = np.nan
    np.testing.assert_array_equal(np.concatenate([segment.rows for segment in whole]), expected)
    assert [segment.errors for segment in whole] == [(), (RowError(row=1, reason="DECODE_FAILED", message="torn"),), ()]
    assert len(packed.read(1, 3).rows) == 3
    assert held(packed, IDS) == [4, 4, 2]
    assert held(packed, np.array([*IDS[:5], 7, *IDS[6:]])) == [4, 0, 2]
    assert (packed.unreadable(10).tolist(), packed.unreadable(5).tolist()) == ([5], [])


def test_a_damaged_block_is_named_by_its_segment_and_goes_as_a_whole(packed: EmbeddingTable) -> None:
    path = packed.directory / "block-00000000"
    whole = path.read_bytes()
    path.write_bytes(whole[:-50] + b"x" + whole[-49:])
    for index in (1, 0):
        with pytest.raises(SegmentDamaged) as caught:
            packed.read(index, 4)
        assert caught.value.index == index
    packed.drop(1)
    assert held(packed, IDS) == [0, 0, 2]


def test_a_block_is_verified_once_until_it_changes(packed: EmbeddingTable, monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[Path] = []
    verify = array_file.verify

    def counted(path: Path) -> array_file.Stamp:
        verified.append(path)
        return verify(path)

    monkeypatch.setattr(array_file, "verify", counted)
    for _ in range(3):
        list(packed.read_all(10))
    path = packed.directory / "block-00000000"
    assert verified == [path]
    os.utime(path, (0, 0))
    list(packed.read_all(10))
    assert verified == [path, path]


def test_a_segment_that_is_made_again_takes_the_place_of_its_block(packed: EmbeddingTable) -> None:
    rows = np.ones((4, 2), np.float32)
    packed.write(Segment(first=4, rows=rows, errors=()), IDS[4:8])
    assert files(packed) == ["segment-00000001", "segment-00000002"]
    np.testing.assert_array_equal(packed.read(1, 4).rows, rows)


def test_a_segment_that_becomes_a_part_of_a_block_while_it_is_read_is_read_there(
    table: EmbeddingTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BLOCK_SEGMENTS", 2)
    writer, read = EmbeddingTable(table.directory), array_file.read

    def late(path: Path) -> array_file.ArrayFile:
        monkeypatch.setattr(array_file, "read", read)
        writer.pack(0)
        return read(path)

    monkeypatch.setattr(array_file, "read", late)
    assert len(table.read(0, 4).rows) == 4
    assert "block-00000000" in files(table)


def test_rows_are_kept_in_float16_where_that_is_asked_for_and_read_as_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BLOCK_SEGMENTS", 2)
    table = EmbeddingTable(tmp_path, np.float16)
    rows = (np.arange(16).reshape(8, 2) / 7).astype(np.float32)
    for first in (0, 4):
        part = slice(first, first + 4)
        table.write(Segment(first=first, rows=rows[part], errors=()), IDS[part])
    expected = rows.astype(np.float16).astype(np.float32)
    for _ in range(2):
        for reader in (table, EmbeddingTable(tmp_path)):
            found = np.concatenate([segment.rows for segment in reader.read_all(8)])
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, expected)
        table.pack(0)
    assert array_file.read(tmp_path / "block-00000000").arrays["rows"].dtype == np.float16
