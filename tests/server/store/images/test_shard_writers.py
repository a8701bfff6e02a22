from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from manyview_server.store.images import shard_writers as writers_module
from manyview_server.store.images.shard_writers import START, ShardWriter, ShardWriters
from manyview_server.store.images.shards import shard_path
from support.service.descriptors import open_files


def use(writers: ShardWriters, dataset: int) -> None:
    writer = writers.get(dataset, str(dataset), START)
    writer.append(dataset, "jpg", b"data", {})
    writer.sync()
    writer.commit()


def test_a_data_set_keeps_its_writer(tmp_path: Path) -> None:
    writers = ShardWriters(tmp_path)
    assert writers.get(1, "a", START) is writers.get(1, "a", START)
    assert writers.get(2, "b", START) is not writers.get(1, "a", START)
    writers.close()


def test_files_unused_for_longest_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers_module, "MAX_OPEN", 3)
    writers = ShardWriters(tmp_path)
    for dataset in range(8):
        (tmp_path / str(dataset)).mkdir()
        use(writers, dataset)
        writers.trim()
    kept = writers.get(5, "5", START)
    assert len(open_files(tmp_path)) == 3
    for dataset in (0, 1):
        use(writers, dataset)
        writers.trim()
    assert writers.get(5, "5", START) is kept
    writers.close()
    assert not open_files(tmp_path)


def test_a_sealed_shard_is_closed_and_an_empty_one_is_not(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path)
    writer.seal()
    assert writer.append(1, "jpg", b"data", {}).shard == 0
    writer.sync()
    assert not writer.commit()
    writer.seal()
    writer.seal()
    assert writer.append(2, "jpg", b"data", {}).shard == 1
    writer.sync()
    assert writer.commit()
    assert not writer.commit()
    writer.close()
    with tarfile.open(shard_path(tmp_path, 0)) as tar:
        assert len(tar.getnames()) == 2
