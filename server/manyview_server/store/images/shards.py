"""Images on disk: WebDataset tar files, append-only, that any tar reader can read.

Each image is two members, `<image_id>.<ext>` with the bytes as they were sent and then `<image_id>.json` with sha256,
key, label, width and height: the index can be rebuilt from the shards alone. A shard is closed at 1 GiB with tar's end
marker and the next is begun. Nothing of sqlite here: the worker reads shards with this module too.

Durability: `append` buffers, `sync` writes and syncs, and only then may the index commit `position`. What lies beyond
the committed position was never acknowledged, and `recover` cuts it off.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from manyview_server.store.durable_files import sync_directory, sync_file

SNAPSHOT_DTYPE = np.dtype(
    [
        ("image_id", "<i8"),
        ("shard", "<i4"),
        ("offset", "<i8"),
        ("length", "<i4"),
        ("label", "<i4"),
        ("width", "<i4"),
        ("height", "<i4"),
    ]
)

BLOCK_BYTES = 512
ROLL_BYTES = 1 << 30
END_OF_ARCHIVE = bytes(2 * BLOCK_BYTES)
SHARD_NAME = re.compile(r"shard-([0-9]{8,})\.tar")
# The kernel takes at most IOV_MAX = 1024 pieces in one call.
MAX_PIECES = 1024


class Position(NamedTuple):
    """A place in a data set's shards: bytes from the start of the shard."""

    shard: int
    offset: int


START = Position(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedImage:
    """An image found in a shard by `scan`. `end` is where its record ends, in bytes from the start of the shard."""

    image_id: int
    offset: int
    length: int
    end: int
    meta: dict[str, Any]


def image_id_of(sha256: bytes) -> int:
    """The first 63 bits of the digest: it fits SQLite's and numpy's signed integers."""
    return int.from_bytes(sha256[:8], "big") >> 1


def shard_path(directory: Path, shard: int) -> Path:
    """Where a shard lies within its data set's directory."""
    return directory / f"shard-{shard:08d}.tar"


def shards_in(directory: Path) -> dict[int, Path]:
    """Return the shards in a data set's directory by their number, in order. Files with other names are left out."""
    named = ((SHARD_NAME.fullmatch(path.name), path) for path in (directory.iterdir() if directory.is_dir() else ()))
    found = {int(match[1]): path for match, path in named if match and path.is_file() and not path.is_symlink()}
    return dict(sorted(found.items()))


class ShardWriter:
    """Appends to a data set's newest shard. One thread; nobody else may write to the directory."""

    def __init__(self, directory: Path, start: Position = START, roll_bytes: int = ROLL_BYTES) -> None:
        self._directory = directory
        self._roll_bytes = roll_bytes
        self._committed = start
        self._end = start
        self._pieces: list[bytes] = []
        # Bytes of the open shard that are written; a closed shard's end marker is not counted in `_end`.
        self._written = start.offset
        self._fd = -1

    @property
    def position(self) -> Position:
        """Where the records end, those not yet synced included."""
        return self._end

    def append(self, image_id: int, extension: str, data: bytes, meta: dict[str, Any]) -> Position:
        """Buffer one image; returns where its bytes will lie. Raises OSError where a full shard cannot be closed."""
        text = json.dumps(meta, ensure_ascii=False, separators=(",", ":")).encode()
        record = [*_member(f"{image_id:016x}.{extension}", data), *_member(f"{image_id:016x}.json", text)]
        num_bytes = sum(map(len, record))
        if self._end.offset and self._end.offset + num_bytes > self._roll_bytes:
            self._roll()
        start = self._end
        self._pieces += record
        self._end = Position(start.shard, start.offset + num_bytes)
        return Position(start.shard, start.offset + BLOCK_BYTES)

    def sync(self) -> None:
        """Write what is buffered and wait until it is on the disk. Raises SyncFailed, or OSError from the write."""
        self._write()
        if self._fd >= 0:
            sync_file(os.fdatasync, self._fd)

    def commit(self) -> None:
        """The index has committed `position`."""
        self._committed = self._end

    def rollback(self) -> None:
        """Drop everything since the last commit, from the files too.

        Raises OSError where the disk refuses that; the writer can be used all the same.
        """
        self._pieces.clear()
        rolled = range(self._committed.shard + 1, self._end.shard + 1)
        self._end = self._committed
        self._written = self._committed.offset
        # Closed, so that the next append cuts off what cannot be removed now.
        self.close()
        for shard in rolled:
            shard_path(self._directory, shard).unlink(missing_ok=True)
        path = shard_path(self._directory, self._committed.shard)
        if path.exists():
            os.truncate(path, self._committed.offset)

    def close(self) -> None:
        """Close the file; the next append opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _roll(self) -> None:
        self._pieces.append(END_OF_ARCHIVE)
        self.sync()
        self.close()
        self._end = Position(self._end.shard + 1, 0)
        self._written = 0

    def _write(self) -> None:
        if not self._pieces:
            return
        if self._fd < 0:
            self._open()
        self._written += _write_all(self._fd, self._pieces, self._written)
        self._pieces.clear()

    def _open(self) -> None:
        path = shard_path(self._directory, self._end.shard)
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if os.fstat(self._fd).st_size > self._written:
            os.ftruncate(self._fd, self._written)
        sync_directory(self._directory)


def _write_all(fd: int, pieces: list[bytes], at: int) -> int:
    """Write the pieces from offset `at` on; returns their length."""
    start = at
    for first in range(0, len(pieces), MAX_PIECES):
        group = pieces[first : first + MAX_PIECES]
        end = at + sum(map(len, group))
        at += os.pwritev(fd, group, at)
        if at < end:
            # Rare: a signal, or the disk ran full in the middle. The rest in one piece tells which.
            view = memoryview(b"".join(group))
            while at < end:
                at += os.pwrite(fd, view[at - end :], at)
    return at - start


def _member(name: str, data: bytes) -> tuple[bytes, bytes, bytes]:
    """A tar member: header, bytes, padding to whole blocks."""
    return _header(name, len(data)), data, bytes(-len(data) % BLOCK_BYTES)


def _header(name: str, size: int) -> bytes:
    # POSIX ustar: name, mode, uid, gid, size, mtime, checksum, type, link name, magic and version; the rest is zero.
    head = b"%-100b0000644\0000000000\0000000000\0%011o\00000000000000\0" % (_padded(name, 100), size)
    tail = b"0".ljust(101, b"\0") + b"ustar\00000"
    # The checksum is summed with its own eight bytes as spaces.
    checksum = sum(head) + sum(tail) + 8 * 0x20
    return (head + b"%06o\0 " % checksum + tail).ljust(BLOCK_BYTES, b"\0")


def _padded(name: str, width: int) -> bytes:
    return name.encode("ascii").ljust(width, b"\0")


class ShardReader:
    """Reads images by their place. Any thread; open files are kept until `close`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fds: dict[int, int] = {}
        self._lock = threading.Lock()

    def read(self, shard: int, offset: int, length: int) -> bytes:
        """The image's bytes. Raises EOFError where the shard is too short, FileNotFoundError where it is gone.

        Whether they are the bytes that were sent is for the caller to check: `image_id_of(sha256(bytes))`.
        """
        data = os.pread(self._fd(shard), length, offset)
        while len(data) < length:
            more = os.pread(self._fd(shard), length - len(data), offset + len(data))
            if not more:
                raise EOFError(f"shard {shard} ends before byte {offset + length}")
            data += more
        return data

    def close(self) -> None:
        """Close the files. No read may be running."""
        with self._lock:
            for fd in self._fds.values():
                os.close(fd)
            self._fds.clear()

    def _fd(self, shard: int) -> int:
        with self._lock:
            if shard not in self._fds:
                path = shard_path(self._directory, shard)
                self._fds[shard] = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            return self._fds[shard]


def recover(directory: Path, committed: Position) -> Position:
    """Cut off what was written beyond `committed` in its shard; returns where to go on.

    The shard may be shorter than what was committed, because the disk lost images. Then the rest is left alone, and
    writing goes on in the next shard. Later shards are not touched: `survey` has found them.
    """
    path = shard_path(directory, committed.shard)
    size = path.stat().st_size if path.exists() else 0
    if size < committed.offset:
        return Position(committed.shard + 1, 0)
    if size > committed.offset:
        os.truncate(path, committed.offset)
    return committed


def scan(path: Path, start: int = 0) -> Iterator[ScannedImage]:
    """Yield the complete images of a shard from byte `start` on, in order, up to the first damage or the end.

    It reads headers and JSON only.
    """
    with path.open("rb") as file:
        at = start
        while (image := _read_member(file, at)) is not None:
            name, offset, length = image
            record = _read_member(file, _after(offset, length))
            if record is None or record[0] != name.partition(".")[0] + ".json":
                return
            file.seek(record[1])
            try:
                meta = json.loads(file.read(record[2]))
                image_id = int(name.partition(".")[0], 16)
            except ValueError:
                return
            at = _after(record[1], record[2])
            yield ScannedImage(image_id=image_id, offset=offset, length=length, end=at, meta=meta)


def _after(offset: int, length: int) -> int:
    return offset + length + (-length % BLOCK_BYTES)


def _read_member(file: Any, at: int) -> tuple[str, int, int] | None:
    """Name, offset and length of the member at `at`; None at the end, or where no intact header is."""
    file.seek(at)
    header = file.read(BLOCK_BYTES)
    try:
        name = header[:100].rstrip(b"\0").decode("ascii")
        length = int(header[124:135], 8)
    except ValueError:
        return None
    return (name, at + BLOCK_BYTES, length) if header == _header(name, length) else None
