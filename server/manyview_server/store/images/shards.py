"""Images on disk: append-only WebDataset tar files, which any tar reader can read.

Each image is two members: `<image_id>.<ext>` with the bytes as they were sent, and then `<image_id>.json` with sha256,
key, label, width and height. The shards therefore describe their images without the database. `shard_writers` writes
them. The bytes after the committed position were never acknowledged, and `recover` cuts them off.

Workers read shards with this module too, so it does not import sqlite.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

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
# A header of POSIX ustar: name, mode, uid, gid, size, mtime, checksum, type, link name, magic and version. Then 0.
MODE = b"0000644\0" + 2 * b"0000000\0"
TIME = b"\0" + b"00000000000\0"
REST = (b"0".ljust(101, b"\0") + b"ustar\00000").ljust(BLOCK_BYTES - 156, b"\0")
FIXED_SUM = sum(MODE) + sum(TIME) + 8 * 0x20 + sum(REST)
# A reader holds at most this many files open, so that a data set of thousands of shards needs few descriptors.
MAX_OPEN_SHARDS = 128
SHARD_NAME = re.compile(r"shard-([0-9]{8,})\.tar")


class Position(NamedTuple):
    """A place in the shards of a data set. `offset` is in bytes from the start of the shard."""

    shard: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedImage:
    """An image found in a shard by `scan`. `end` is where its record ends, in bytes from the start of the shard."""

    image_id: int
    offset: int
    length: int
    end: int
    meta: dict[str, Any]


def image_id_of(sha256: bytes) -> int:
    """Return the first 63 bits of the digest, which fit into the signed integers of SQLite and numpy."""
    return int.from_bytes(sha256[:8], "big") >> 1


def shard_path(directory: Path, shard: int) -> Path:
    """Return the path of a shard in the directory of its data set."""
    return directory / f"shard-{shard:08d}.tar"


def shards_in(directory: Path) -> dict[int, Path]:
    """Return the shards in a data set's directory by their number, in order. Files with other names are left out."""
    named = ((SHARD_NAME.fullmatch(path.name), path) for path in (directory.iterdir() if directory.is_dir() else ()))
    found = {int(match[1]): path for match, path in named if match and path.is_file() and not path.is_symlink()}
    return dict(sorted(found.items()))


@dataclass(slots=True, eq=False)
class _OpenShard:
    """A file of a reader, and the number of reads in progress."""

    fd: int
    num_reads: int = 0


class ShardReader:
    """Reads images by their place, on any thread. The files that were used last stay open until `close`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, shard: int, offset: int, length: int) -> bytes:
        """Return the bytes of an image. Raises EOFError if the shard is too short, FileNotFoundError if it is gone.

        The caller must check that they are the bytes that were sent: `image_id_of(sha256(bytes))`.
        """
        with self._opened(shard) as fd:
            data = os.pread(fd, length, offset)
            while len(data) < length:
                more = os.pread(fd, length - len(data), offset + len(data))
                if not more:
                    raise EOFError(f"shard {shard} ends before byte {offset + length}")
                data += more
            return data

    def read_ahead(self, shard: int, offset: int, length: int) -> None:
        """Let the system read the bytes of an image into the page cache, without waiting for them.

        An image that cannot be read is an error of `read` alone.
        """
        with suppress(OSError), self._opened(shard) as fd:
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Close the files. Call it only while no read is running."""
        with self._lock:
            for opened in self._open.values():
                os.close(opened.fd)
            self._open.clear()

    @contextmanager
    def _opened(self, shard: int) -> Iterator[int]:
        """Open the file of a shard, and keep it open for this read."""
        with self._lock:
            if shard not in self._open:
                path = shard_path(self._directory, shard)
                self._open[shard] = _OpenShard(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
            self._open.move_to_end(shard)
            opened = self._open[shard]
            opened.num_reads += 1
            self._close_unused()
        try:
            yield opened.fd
        finally:
            with self._lock:
                opened.num_reads -= 1

    def _close_unused(self) -> None:
        """Close the files that were unused for longest, if there are too many. A file that is being read stays open."""
        excess = len(self._open) - MAX_OPEN_SHARDS
        for shard in list(self._open)[:excess] if excess > 0 else ():
            if not self._open[shard].num_reads:
                os.close(self._open.pop(shard).fd)


def recover(directory: Path, committed: Position) -> Position:
    """Cut off the bytes after `committed` in its shard, and return the position where writing continues.

    The shard may be shorter than the committed position, because the disk lost images. Its rest is then left as it is,
    and writing continues in the next shard. Later shards are not touched, because `survey` has found them.
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

    It reads nothing but headers and JSON.
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


def around_member(name: str, num_bytes: int) -> tuple[bytes, bytes]:
    """Return what is around the bytes of a tar member: its header, and the padding to whole blocks."""
    return _header(name, num_bytes), bytes(-num_bytes % BLOCK_BYTES)


def _header(name: str, size: int) -> bytes:
    encoded, octal = name.encode("ascii"), b"%011o" % size
    # The checksum is summed with its own eight bytes as spaces.
    checksum = FIXED_SUM + sum(encoded) + sum(octal)
    return b"".join((encoded.ljust(100, b"\0"), MODE, octal, TIME, b"%06o\0 " % checksum, REST))


def _after(offset: int, length: int) -> int:
    return offset + length + (-length % BLOCK_BYTES)


def _read_member(file: Any, at: int) -> tuple[str, int, int] | None:
    """Return name, offset and length of the member at `at`, or None if there is no intact header."""
    file.seek(at)
    header = file.read(BLOCK_BYTES)
    try:
        name = header[:100].rstrip(b"\0").decode("ascii")
        length = int(header[124:135], 8)
    except ValueError:
        return None
    return (name, at + BLOCK_BYTES, length) if header == _header(name, length) else None
