"""Memory in a file either has all of its blocks, or is an error that says so."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from manyview_server.system import disk_space
from manyview_server.worker.images import scratch
from manyview_server.worker.images.scratch import ScratchDiskFull
from support.clients.probe import require
from support.faults.disks import MIB, fill, small_tmpfs


def test_it_is_zeros_in_a_file_without_a_name(tmp_path: Path) -> None:
    found = scratch.allocate(tmp_path / "made" / "below", (2, 3, 8, 8))
    assert isinstance(found, np.memmap)
    assert found.shape == (2, 3, 8, 8)
    assert not found.any()
    assert list((tmp_path / "made" / "below").iterdir()) == []


def test_a_full_disk_is_an_error_that_names_the_bytes_and_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "free_bytes", lambda directory: 1_000_000)
    monkeypatch.setattr(scratch, "reserve_bytes", lambda directory: 400_000)
    assert scratch.allocate(tmp_path, (600_000,)).nbytes == 600_000
    with pytest.raises(ScratchDiskFull) as failed:
        scratch.allocate(tmp_path, (600_001,))
    assert failed.value.reason == "DISK_FULL"
    assert str(failed.value) == (
        "the decoded images need a scratch file of 600,001 bytes, and the server's disk has 1,000,000 bytes free, of "
        "which 400,000 must stay free"
    )
    assert str(tmp_path) not in f"{failed.value} {failed.value.hint}"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_or_a_quota_that_ends_while_blocks_are_allocated_is_the_same_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(ScratchDiskFull):
        scratch.allocate(tmp_path, (100,))
    assert list(tmp_path.iterdir()) == []


def test_other_errors_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="broken"):
        scratch.allocate(tmp_path, (100,))


def test_a_real_disk_without_room_for_all_of_it_gives_back_what_was_allocated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The check is left out, as if somebody else had filled the disk after it."""
    require("tmpfs")
    with small_tmpfs(8) as disk:
        fill(disk, leave_bytes=2 * MIB)
        free = disk_space.free_bytes(disk)
        assert 0 < free <= 2 * MIB
        monkeypatch.setattr(scratch, "reserve_bytes", lambda directory: -(1 << 40))
        with pytest.raises(ScratchDiskFull, match=f"{free:,} bytes free"):
            scratch.allocate(disk, (4 * MIB,))
        assert disk_space.free_bytes(disk) == free
        held = scratch.allocate(disk, (MIB,))
        held[:] = 7
        assert np.all(held == 7)
        assert disk_space.free_bytes(disk) <= free - MIB
        del held
        assert disk_space.free_bytes(disk) == free
