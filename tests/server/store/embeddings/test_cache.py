from __future__ import annotations

import os
from pathlib import Path

import pytest

from manyview_server.errors import ResourceExhausted
from manyview_server.store.embeddings.cache import EmbeddingCache, remove, size_of, tables_of_job


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


def table(root: Path, dataset: str, name: str, num_bytes: int, used_at: float) -> Path:
    path = root / dataset.ljust(32, "0") / name
    path.mkdir(parents=True)
    (path / "segment-00000000").write_bytes(bytes(num_bytes))
    os.utime(path, (used_at, used_at))
    return path


def test_the_least_recently_used_tables_make_room(root: Path) -> None:
    oldest = table(root, "a", "backbone-1", 40, 1)
    newest = table(root, "a", "backbone-2", 40, 3)
    middle = table(root, "b", "backbone-1", 10, 2)
    cache = EmbeddingCache(root, 100)
    cache.make_room(10, [])
    assert all(path.exists() for path in (oldest, middle, newest))
    cache.make_room(30, [])
    assert [path.exists() for path in (oldest, middle, newest)] == [False, True, True]
    cache.make_room(60, [])
    assert [path.exists() for path in (middle, newest)] == [False, True]
    cache.make_room(61, [])
    assert not newest.exists()


def test_tables_in_use_stay_and_who_comes_is_told_to_wait(root: Path) -> None:
    kept = table(root, "a", "backbone-1", 80, 1)
    with pytest.raises(ResourceExhausted, match="in use take 80 of 100 bytes") as caught:
        EmbeddingCache(root, 100).make_room(30, [kept])
    assert (caught.value.reason, caught.value.retry_after_s > 0) == ("EMBEDDING_CACHE_FULL", True)
    assert kept.exists()


def test_what_has_other_names_than_tables_is_left_alone(root: Path) -> None:
    stray = [table(root, "a", "my-notes", 80, 1), table(root, "copy of a", "backbone-1", 80, 1)]
    (root / "README").write_text("mine")
    (root / ("b" * 32)).write_text("a file where a data set's directory could be")
    mine = table(root, "a", "backbone-1", 80, 2)
    EmbeddingCache(root, 100).make_room(100, [])
    assert not mine.exists()
    assert all(path.exists() for path in stray)


def test_what_never_fits_removes_nothing(root: Path) -> None:
    path = table(root, "a", "backbone-1", 80, 1)
    with pytest.raises(ResourceExhausted, match="take 101 bytes, and embedding_cache_bytes allows 100") as caught:
        EmbeddingCache(root, 100).make_room(101, [])
    assert (caught.value.reason, caught.value.retry_after_s) == ("EMBEDDINGS_TOO_LARGE", 0)
    assert path.exists()


def test_a_full_disk_gets_the_room_of_old_tables_before_it_is_full(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(root, "a", "backbone-1", 80, 1)
    cache = EmbeddingCache(root, 1000)
    monkeypatch.setattr(cache, "_free_bytes", lambda: 10 if path.exists() else 60)
    cache.make_room(50, [])
    assert not path.exists()
    with pytest.raises(ResourceExhausted) as caught:
        cache.make_room(70, [])
    assert caught.value.reason == "DISK_FULL"


def test_a_table_that_is_used_is_the_newest(root: Path) -> None:
    first, second = (table(root, "a", f"backbone-{n}", 40, n) for n in (1, 2))
    cache = EmbeddingCache(root, 100)
    cache.touch(first)
    cache.make_room(30, [])
    assert (first.exists(), second.exists()) == (True, False)
    new = cache.path("c", "backbone", "3")
    cache.touch(new)
    assert new.is_dir()


def test_the_tables_of_a_job_are_those_of_its_uid(root: Path) -> None:
    mine = [table(root, dataset, "abc-1", 1, 1) for dataset in ("a", "b")]
    table(root, "a", "abcd-1", 1, 1)
    assert sorted(tables_of_job(root, "abc")) == mine
    remove(mine[0])
    assert tables_of_job(root, "abc") == mine[1:]
    assert (size_of(mine[0]), size_of(mine[1])) == (0, 1)
