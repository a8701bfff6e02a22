"""Writers of shards, one for each data set that receives images. They belong to the database thread.

`append` buffers, `sync` writes and syncs, and only then may the index commit `position`. A shard is closed with
the end marker of tar, and the next one is started, at 1 GiB and at each position that is a multiple of
`MAX_SHARD_IMAGES`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from manyview_server.store.durable_files import sync_directory, sync_file
from manyview_server.store.images.shards import BLOCK_BYTES, Position, around_member, shard_path

ROLL_BYTES = 1 << 30
# By positions, because these are known without counting the images of the open shard.
MAX_SHARD_IMAGES = 1 << 16
END_OF_ARCHIVE = bytes(2 * BLOCK_BYTES)
# The kernel takes at most IOV_MAX = 1024 pieces in one call.
MAX_PIECES = 1024
# A writer holds one open file.
MAX_OPEN = 64
START = Position(0, 0)
to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class ShardWriter:
    """Appends to the newest shard of a data set. It must be the only writer, on one thread."""

    def __init__(self, directory: Path, start: Position = START, roll_bytes: int = ROLL_BYTES) -> None:
        self._directory = directory
        self._roll_bytes = roll_bytes
        self._committed = start
        self._end = start
        self._pieces: list[bytes | memoryview] = []
        # The bytes of the open shard that are written. `_end` does not count the end marker of a closed shard.
        self._written = start.offset
        self._fd = -1

    @property
    def position(self) -> Position:
        """The end of the records, those not yet synced included."""
        return self._end

    def append(self, image_id: int, extension: str, data: bytes | memoryview, meta: dict[str, Any]) -> Position:
        """Buffer an image, and return the place of its bytes. Raises OSError if a full shard cannot be closed."""
        name = f"{image_id:016x}"
        head, padding = around_member(f"{name}.{extension}", len(data))
        text = to_json(meta).encode()
        text_head, text_padding = around_member(f"{name}.json", len(text))
        behind = b"".join((padding, text_head, text, text_padding))
        num_bytes = len(head) + len(data) + len(behind)
        if self._end.offset and self._end.offset + num_bytes > self._roll_bytes:
            self._roll()
        start = self._end
        self._pieces += (head, data, behind)
        self._end = Position(start.shard, start.offset + num_bytes)
        return Position(start.shard, start.offset + BLOCK_BYTES)

    def sync(self) -> None:
        """Write the buffered images, and wait until they are on the disk.

        Raises SyncFailed, or OSError from the write.
        """
        self._write()
        if self._fd >= 0:
            sync_file(os.fdatasync, self._fd)

    def seal(self) -> None:
        """Close the open shard, unless it is empty. The next image starts another one. Raises OSError."""
        if self._end.offset:
            self._roll()

    def commit(self) -> bool:
        """Note that the database has committed `position`. Return whether a shard was closed since the last commit."""
        sealed = self._end.shard > self._committed.shard
        self._committed = self._end
        return sealed

    def rollback(self) -> None:
        """Drop everything since the last commit, in the files too.

        Raises OSError if the disk refuses that. The writer can still be used.
        """
        self._pieces.clear()
        rolled = range(self._committed.shard + 1, self._end.shard + 1)
        self._end = self._committed
        self._written = self._committed.offset
        # Close the file, so that the next append cuts off the bytes that cannot be removed now.
        self.close()
        for shard in rolled:
            shard_path(self._directory, shard).unlink(missing_ok=True)
        path = shard_path(self._directory, self._committed.shard)
        if path.exists():
            os.truncate(path, self._committed.offset)

    def close(self) -> None:
        """Close the file. The next append opens it again."""
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


class ShardWriters:
    """The open writers, by the primary key of their data set."""

    def __init__(self, datasets_dir: Path) -> None:
        self._datasets_dir = datasets_dir
        self._writers: dict[int, ShardWriter] = {}

    def get(self, dataset: int, uid: str, committed: Position) -> ShardWriter:
        """Return the writer of a data set. A new one continues from `committed`."""
        writer = self._writers.pop(dataset, None)
        if writer is None:
            writer = ShardWriter(self._datasets_dir / uid, committed)
        # Put it at the end. The first one is then the one that was unused for longest.
        self._writers[dataset] = writer
        return writer

    def trim(self) -> None:
        """Close the files that were unused for longest. Call it between transactions."""
        while len(self._writers) > MAX_OPEN:
            self.forget(next(iter(self._writers)))

    def forget(self, dataset: int) -> None:
        """Close the writer of a data set, if it has one."""
        writer = self._writers.pop(dataset, None)
        if writer is not None:
            writer.close()

    def close(self) -> None:
        """Close all writers."""
        for dataset in list(self._writers):
            self.forget(dataset)


def _write_all(fd: int, pieces: list[bytes | memoryview], at: int) -> int:
    """Write the pieces from offset `at` on, and return their length."""
    start = at
    for first in range(0, len(pieces), MAX_PIECES):
        group = pieces[first : first + MAX_PIECES]
        end = at + sum(map(len, group))
        at += os.pwritev(fd, group, at)
        if at < end:
            # A signal interrupted the write, or the disk ran full. Writing the rest continues it, or raises.
            view = memoryview(b"".join(group))
            while at < end:
                at += os.pwrite(fd, view[at - end :], at)
    return at - start
