"""The first reading of a shard takes little memory and reads no images."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manyview._uploads.shards.member_choice import MemberChoice
from manyview._uploads.shards.samples import samples
from manyview._uploads.shards.shard_index import ShardIndex
from manyview._uploads.skipped import SkippedCount

Shard = Callable[..., Path]


def test_a_sample_takes_less_than_a_kilobyte(shard: Shard) -> None:
    path = shard([member for n in range(400) for member in ((f"{n}.jpg", b"x" * 2000), (f"{n}.cls", b"7"))])
    tracemalloc.start()
    index = ShardIndex(path, MemberChoice())
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert index.sample("399").label("jpg", 0) == "7"
    assert size < 400 * 1000


def test_images_are_read_one_by_one_and_once(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shard([member for n in range(40) for member in ((f"a.{n}.jpg", b"x" * 1_000_000), (f"a.{n}.txt", b"cat"))])
    read = 0
    open_file = Path.open

    def counting(self: Path, mode: str) -> Any:
        file = open_file(self, mode)
        read_file = file.read

        def count(size: int = -1) -> Any:
            nonlocal read
            data = read_file(size)
            read += len(data)
            return data

        monkeypatch.setattr(file, "read", count)
        return file

    monkeypatch.setattr(Path, "open", counting)
    tracemalloc.start()
    images = samples(path, "a.tar", SkippedCount(), max_image_bytes=2_000_000, choice=MemberChoice())
    assert sum(image.label == "cat" for image in images) == 40
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000
    assert 40_000_000 <= read < 1.1 * path.stat().st_size
