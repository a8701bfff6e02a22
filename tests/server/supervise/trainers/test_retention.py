"""The newest checkpoints stay, and those that answers named, within a bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from manyview_server.store.jobs import checkpoints
from manyview_server.store.records import Checkpoint
from manyview_server.supervise.trainers.retention import newest_good, remove_unlisted, superfluous


def checkpoint(step: int, *, pinned: bool = False, directory: str = "") -> Checkpoint:
    return Checkpoint(
        train_job_id="job",
        step=step,
        epoch=0,
        attempt=1,
        directory=directory or checkpoints.name(step, 1),
        num_bytes=1,
        create_time=0.0,
        pinned=pinned,
        model={},
    )


def test_the_newest_three_and_pinned_ones_are_kept() -> None:
    listed = [checkpoint(step, pinned=step == 2) for step in range(6, 0, -1)]
    assert [c.step for c in superfluous(listed)] == [3, 1]


@given(st.lists(st.booleans(), max_size=60))
def test_there_are_never_more_than_sixteen_and_the_newest_is_among_them(pins: Any) -> None:
    listed = [checkpoint(100 - i, pinned=pinned) for i, pinned in enumerate(pins)]
    dropped = superfluous(listed)
    kept = [c for c in listed if c not in dropped]
    assert len(kept) <= 16
    assert kept[:3] == listed[:3]
    assert all(c.pinned for c in kept[3:])
    assert len(kept) == min(16, len(listed[:3]) + sum(pins[3:]))


async def test_the_newest_good_one_is_found_behind_corrupt_ones(tmp_path: Path) -> None:
    listed = [checkpoint(step, directory=str(tmp_path / checkpoints.name(step, 1))) for step in (3, 2, 1)]
    for one in listed:
        checkpoints.write(Path(one.directory), {checkpoints.BACKBONE: b"weights"})
    assert await newest_good(listed) == (listed[0], [])
    (Path(listed[0].directory) / checkpoints.BACKBONE).write_bytes(b"weighty")
    (Path(listed[1].directory) / checkpoints.BACKBONE).unlink()
    assert await newest_good(listed) == (listed[2], listed[:2])
    assert await newest_good(listed[:2]) == (None, listed[:2])
    assert await newest_good([]) == (None, [])


def test_what_was_never_registered_is_removed_and_nothing_else(tmp_path: Path) -> None:
    names = ["000000001-1", "000000002-1", ".tmp-000000003-1-abcd", "notes"]
    for name in names:
        (tmp_path / name).mkdir()
    remove_unlisted(tmp_path, [checkpoint(1)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000001-1", "notes"]
    remove_unlisted(tmp_path / "missing", [])
