from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manyview_server.store.jobs import checkpoints
from manyview_server.store.jobs.checkpoints import CheckpointCorrupt


def write_d(path: Path) -> None:
    path.write_bytes(b"d" * 1000)


def write(directory: Path, step: int, attempt: int) -> Path:
    path = directory / checkpoints.name(step, attempt)
    checkpoints.write(path, {"a.bin": b"abc", "b.bin": write_d})
    return path


def test_what_was_written_verifies_and_its_size_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "jobs" / checkpoints.name(12, 1)
    manifest = checkpoints.write(path, {"a.bin": b"abc"})
    assert checkpoints.verify(path) == manifest
    assert checkpoints.num_bytes(manifest) == 3
    assert (path / "a.bin").read_bytes() == b"abc"


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "a.bin").write_bytes(b"abd"),
        lambda path: (path / "b.bin").write_bytes(b"d" * 999),
        lambda path: (path / "a.bin").unlink(),
        lambda path: (path / checkpoints.MANIFEST).unlink(),
        lambda path: (path / checkpoints.MANIFEST).write_bytes(b"[]"),
        lambda path: (path / checkpoints.MANIFEST).write_bytes(b'{"files": {}}'),
        lambda path: (path / checkpoints.MANIFEST).write_bytes(b"\xff"),
    ],
)
def test_any_damage_is_found(tmp_path: Path, damage: Callable[..., Any]) -> None:
    older, newer = write(tmp_path, 10, 1), write(tmp_path, 20, 1)
    checkpoints.verify(newer)
    damage(newer)
    with pytest.raises(CheckpointCorrupt):
        checkpoints.verify(newer)
    checkpoints.verify(older)


def test_a_whole_checkpoint_under_the_name_of_another_is_corrupt(tmp_path: Path) -> None:
    for step in (10, 20):
        checkpoints.write(tmp_path / checkpoints.name(step, 1), {checkpoints.STATE_JSON: b'{"step": %d}' % step})
        checkpoints.verify(tmp_path / checkpoints.name(step, 1))
    shutil.rmtree(tmp_path / checkpoints.name(20, 1))
    shutil.copytree(tmp_path / checkpoints.name(10, 1), tmp_path / checkpoints.name(20, 1))
    with pytest.raises(CheckpointCorrupt, match="of step 10"):
        checkpoints.verify(tmp_path / checkpoints.name(20, 1))
    checkpoints.verify(tmp_path / checkpoints.name(10, 1))


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoints.write(tmp_path / checkpoints.name(1, 1), {"a.bin": b"a", "b.bin": fail})
    assert list(tmp_path.iterdir()) == []


def test_remains_of_a_killed_writer_are_no_checkpoints_and_can_be_removed(tmp_path: Path) -> None:
    remains = tmp_path / f"{checkpoints.TEMPORARY_PREFIX}{checkpoints.name(5, 1)}-0badcafe"
    remains.mkdir()
    (tmp_path / "scratch").mkdir()
    good = write(tmp_path, 4, 1)
    assert [path for path in tmp_path.iterdir() if checkpoints.parse_name(path)] == [good]
    checkpoints.remove_unfinished(tmp_path)
    assert not remains.exists()
    assert good.exists()


def test_the_same_name_again_replaces_what_was_there(tmp_path: Path) -> None:
    path = write(tmp_path, 4, 1)
    checkpoints.write(path, {"a.bin": b"other"})
    assert list(checkpoints.verify(path)["files"]) == ["a.bin"]


def test_the_newest_of_the_corrupt_ones_are_kept_aside(tmp_path: Path) -> None:
    for step in range(1, 6):
        checkpoints.set_aside(write(tmp_path, step, 1))
    checkpoints.set_aside(tmp_path / checkpoints.name(9, 1))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [f"{checkpoints.CORRUPT_PREFIX}{checkpoints.name(step, 1)}" for step in (4, 5)]
    assert not [path for path in tmp_path.iterdir() if checkpoints.parse_name(path)]
