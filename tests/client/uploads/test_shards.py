"""Shards: which files are shards."""

from pathlib import Path

import pytest

from manyview._uploads.shards import is_shard


@pytest.mark.parametrize(
    "name", ["a.tar", "A.TAR", "a.tgz", "a.tar.gz", "sa_000.Tar.Gz", "a.tar.bz2", "a.tar.xz", "a.tar.zst"]
)
def test_a_shard_is_known_by_its_name(name: str) -> None:
    assert is_shard(Path("somewhere") / name)


@pytest.mark.parametrize("name", ["a.jpg", "a.gz", "tar", "a.tar.jpg", "a.start", "a.json.gz"])
def test_other_files_are_no_shards(name: str) -> None:
    assert not is_shard(Path("shards.tar") / name)
