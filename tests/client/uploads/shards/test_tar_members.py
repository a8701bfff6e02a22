"""Tar files as they are found: plain, compressed, joined, damaged, large."""

from __future__ import annotations

import gzip
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from manyview._uploads.shards.tar_members import ShardUnreadable, read_members

Shard = Callable[..., Path]
MEMBERS = [(f"{n}.jpg", b"%d" % n * 600) for n in range(5)]


def read(path: Path) -> list[tuple[str, bytes]]:
    return [(member.name, member.read(10_000)) for member in read_members(path)]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_tar_file_is_read_whatever_its_name_says(mode: str, form: int, shard: Shard) -> None:
    assert read(shard(MEMBERS, mode=mode, form=form)) == MEMBERS


def test_a_gzip_file_in_several_parts_is_read_to_its_end(shard: Shard) -> None:
    path = shard(MEMBERS)
    content = path.read_bytes()
    path.write_bytes(b"".join(gzip.compress(content[at : at + 1500]) for at in range(0, len(content), 1500)))
    assert read(path) == MEMBERS


def test_long_names_and_folders_are_no_obstacle(shard: Shard) -> None:
    path = shard([("d/" * 80 + "a.jpg", b"a")], form=tarfile.GNU_FORMAT)
    with tarfile.open(path, "a") as tar:
        folder = tarfile.TarInfo("empty")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    assert read(path) == [("d/" * 80 + "a.jpg", b"a")]


def broken(path: Path) -> tuple[list[str], str]:
    """Return the members that can be read, and the error that ends them."""
    names = []
    try:
        for member in read_members(path):
            member.read(10_000)
            names.append(member.name)
    except ShardUnreadable as error:
        return names, str(error)
    pytest.fail("no error")


def test_a_damaged_header_ends_the_file_with_an_error_and_not_silently(shard: Shard) -> None:
    path = shard(MEMBERS, form=tarfile.USTAR_FORMAT)
    content = bytearray(path.read_bytes())
    content[3072 : 3072 + 80] = b"x" * 80
    path.write_bytes(content)
    names, error = broken(path)
    assert names == ["0.jpg", "1.jpg"]
    assert error == "it can be read up to byte 3,072: this is not the header of a member: bad checksum"


def test_a_gzip_file_that_ends_early_gives_what_was_read(shard: Shard) -> None:
    path = shard([(f"{n}.jpg", bytes(range(256)) * 40) for n in range(50)], mode="w:gz")
    path.write_bytes(path.read_bytes()[:-300])
    names, error = broken(path)
    assert 0 < len(names) < 50
    assert error.endswith("Compressed file ended before the end-of-stream marker was reached")


def test_joined_files_are_read_up_to_the_first_end_marker_and_that_is_said(shard: Shard) -> None:
    path = shard(MEMBERS)
    path.write_bytes(path.read_bytes() * 2)
    names, error = broken(path)
    assert names == [name for name, _ in MEMBERS]
    assert "other data follow the end marker" in error


def test_a_header_that_asks_for_much_memory_is_damage(shard: Shard) -> None:
    path = shard([("a.jpg", b"a")])
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + path.read_bytes())
    assert broken(path) == (
        [],
        "it is not a readable tar file: the header of a member says that it has 8589934592 bytes",
    )


def test_zstandard_is_read_or_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.zst"
    try:
        from compression import zstd  # type: ignore[import-not-found]
    except ModuleNotFoundError:
        path.write_bytes(b"\x28\xb5\x2f\xfd" + b"-" * 100)
        assert "decompress it with `zstd -d` first" in broken(path)[1]
    else:
        path.write_bytes(zstd.compress(b"\0" * 10240))
        assert read(path) == []


def test_a_large_file_takes_little_memory(shard: Shard) -> None:
    path = shard([(f"{n}.jpg", b"\0") for n in range(1000)])
    tracemalloc.start()
    assert sum(1 for _ in read_members(path)) == 1000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000
