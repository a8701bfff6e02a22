"""Small file systems that a test may fill, break, or cut the power of. Mounting needs root: see `probe.require`.

A power cut is what a disk holds when nothing more is written to it: the server's processes are stopped, the disk's
image is copied without a sync, and the copy is mounted in its place. ext4 commits by itself only every five
minutes, so that what was not synced by the server is not on the copy.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from support.service.harness import ServerProcess, wait_until

PREFIX = "manyview-disk"
MIB = 1 << 20
COMMIT_S = 300
COPIES = 10


class Powered(Protocol):
    """A server, or another process, that a power cut ends."""

    def processes(self) -> list[int]: ...

    def kill(self) -> None: ...

    def is_gone(self) -> bool: ...


@contextmanager
def small_tmpfs(num_mib: int) -> Iterator[Path]:
    """A file system of this size in memory; nothing survives the block."""
    with _mount_points("tmpfs") as (place,):
        _run("mount", "-t", "tmpfs", "-o", f"size={num_mib}m", "tmpfs", str(place))
        yield place


def fill(disk: Path, leave_bytes: int = 0) -> Path:
    """Write one file until only `leave_bytes` are free; gives the file, which may be removed or cut to free them."""
    ballast = disk / "ballast"
    space = os.statvfs(disk)
    with ballast.open("wb") as file, suppress(OSError):
        file.write(bytes(max(0, space.f_bavail * space.f_frsize - leave_bytes)))
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while leave_bytes == 0:
            file.write(bytes(512))
    return ballast


@contextmanager
def ext4(num_mib: int = 64) -> Iterator[Ext4]:
    """An ext4 file system whose power can be cut."""
    with _mount_points("images", "disk") as (images, place):
        _run("mount", "-t", "tmpfs", "-o", f"size={2 * num_mib + 4}m", "tmpfs", str(images))
        yield Ext4(images, place, num_mib)


class Ext4:
    """A mounted image. `path` stays the same over power cuts."""

    def __init__(self, images: Path, path: Path, num_mib: int) -> None:
        self.path = path
        self._images = images
        self._image = images / "0"
        self._num_cuts = 0
        with self._image.open("wb") as file:
            file.truncate(num_mib * MIB)
        # Written at once: a kernel thread that goes on initialising would write to the image while it is copied.
        _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self._image))
        self._mount()

    def power_cut(self, *servers: Powered) -> None:
        """End the servers as a power cut would, and come back with what the disk had."""
        for server in servers:
            freeze(server)
        self._num_cuts += 1
        after = self._images / str(self._num_cuts)
        _copy_at_rest(self._image, after)
        for server in servers:
            server.kill()
            for pid in server.processes():  # one that was frozen while it started did not ask to die with its parent
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_until(server.is_gone, "every process of the server is gone")
        _run("umount", str(self.path))
        self._image.unlink()
        self._image = after
        self._mount()

    def fail(self) -> None:
        """Make the file system read-only, open files too, as ext4 does when a disk breaks. The mount stays so."""
        device = next(line.split()[0] for line in _mounts() if line.split()[1] == str(self.path))
        Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("1")

    def repair(self) -> None:
        """Unmount and mount again, writable. Nobody may have a file open."""
        _run("umount", str(self.path))
        subprocess.run(["fsck.ext4", "-y", str(self._image)], capture_output=True, check=False)
        self._mount()

    def _mount(self) -> None:
        options = f"loop,commit={COMMIT_S},errors=remount-ro"
        _run("mount", "-t", "ext4", "-o", options, str(self._image), str(self.path))


@contextmanager
def server_on(data_dir: Path, catalogue: Path, *arguments: str) -> Iterator[ServerProcess]:
    """A server, not started yet, whose data lie there; gone at the end of the block."""
    server = ServerProcess(data_dir, *arguments, catalogue=catalogue)
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()
        wait_until(lambda: not server.processes(), "every process of the server is gone")


def _copy_at_rest(source: Path, target: Path) -> None:
    """A copy of one moment. If a `sync` elsewhere writes to the source during the copy, it is copied again."""
    for _ in range(COPIES):
        before = _digest(source)
        shutil.copyfile(source, target)
        if _digest(source) == before == _digest(target):
            return
    raise AssertionError(f"{source} did not come to rest in {COPIES} copies")


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha1").digest()


def freeze(server: Powered) -> None:
    """Stop all processes of a server, and wait until no thread of theirs is in the middle of a system call."""
    pids = server.processes()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    wait_until(
        lambda: all(state in "TZX" for pid in pids for state in _thread_states(pid)), "every thread stands still"
    )


def _thread_states(pid: int) -> list[str]:
    states = []
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):
            states.append(stat.read_text().rpartition(")")[2].split()[0])
    return states


@contextmanager
def _mount_points(*names: str) -> Iterator[list[Path]]:
    """Empty directories; whatever is mounted there is unmounted at the end, the last one first."""
    _sweep()
    root = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-{os.getpid()}-"))
    places = [root / name for name in names]
    for place in places:
        place.mkdir()
    try:
        yield places
    finally:
        for place in reversed(places):
            if place.is_mount():
                # Lazily: a test that failed may have left a file open.
                _run("umount", "-l", str(place))
        shutil.rmtree(root)


def _sweep() -> None:
    """Unmount what a test run that was killed has left."""
    for line in reversed(_mounts()):
        place = line.split()[1]
        owner = re.search(rf"/{PREFIX}-(\d+)-", place)
        if owner and not Path("/proc", owner[1]).exists():
            _run("umount", "-l", place)


def _mounts() -> list[str]:
    return Path("/proc/mounts").read_text().splitlines()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
