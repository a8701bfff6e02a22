"""The disks that the other tests break: do they do what those tests believe?"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.clients.probe import require
from support.faults.disks import ext4, fill, small_tmpfs
from support.faults.strace import injected


def write(path: Path, *, sync: bool) -> None:
    """A file with some bytes; synced with its name, or not at all."""
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"x" * 5000)
    if sync:
        os.fsync(fd)
        directory = os.open(path.parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
    os.close(fd)


def test_a_power_cut_takes_what_was_not_synced_and_nothing_else() -> None:
    require("loop")
    with ext4() as disk:
        write(disk.path / "synced", sync=True)
        write(disk.path / "unsynced", sync=False)
        assert {"synced", "unsynced"} <= set(os.listdir(disk.path))
        disk.power_cut()
        assert (disk.path / "synced").read_bytes() == b"x" * 5000
        assert not (disk.path / "unsynced").exists()
        write(disk.path / "later", sync=True)
        disk.power_cut()
        assert {"synced", "later"} <= set(os.listdir(disk.path))
    assert not disk.path.exists()


def test_a_failing_disk_is_read_only_for_open_files_too() -> None:
    require("loop")
    with ext4() as disk:
        with (disk.path / "open").open("wb", buffering=0) as file:
            file.write(b"x")
            disk.fail()
            with pytest.raises(OSError, match="Read-only") as caught:
                file.write(bytes(100_000))
        assert caught.value.errno == errno.EROFS
        disk.repair()
        write(disk.path / "again", sync=True)


def test_a_full_disk_takes_nothing_until_there_is_room() -> None:
    require("tmpfs")
    with small_tmpfs(4) as disk:
        ballast = fill(disk)
        with pytest.raises(OSError, match="No space"):
            write(disk / "more", sync=True)
        ballast.unlink()
        write(disk / "more", sync=True)
        fill(disk, leave_bytes=1 << 20)
        space = os.statvfs(disk)
        assert 0.9 * (1 << 20) <= space.f_bavail * space.f_frsize <= 1 << 20


WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
other = os.open(sys.argv[1] + ".other", os.O_CREAT | os.O_WRONLY)
print("ready", flush=True)
for line in sys.stdin:
    os.pwrite(other, b"x", 0)
    try:
        os.pwrite(fd, b"x", 0)
        print("written", flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""


def test_a_fault_hits_the_nth_call_on_the_named_file_while_it_is_injected(tmp_path: Path) -> None:
    require("strace")
    path = tmp_path / "file"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None

        def ask() -> str:
            assert writer.stdin is not None
            assert writer.stdout is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
            return writer.stdout.readline().strip()

        assert writer.stdout.readline() == "ready\n"
        assert ask() == "written"
        with injected(writer.pid, "pwrite64", "error=EIO:when=2", [path], tmp_path / "strace"):
            assert [ask(), ask(), ask()] == ["written", str(errno.EIO), "written"]
        with injected(writer.pid, "pwrite64", "error=ENOSPC", [path], tmp_path / "strace"):
            assert ask() == str(errno.ENOSPC)
        assert ask() == "written"
        writer.stdin.close()
