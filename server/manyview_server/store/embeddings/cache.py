"""The room that tables of embeddings take.

Tables stay within a limit and leave some of the disk free. The least recently used ones are removed first.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from manyview_server.errors import ResourceExhausted

RESERVE_BYTES = 1 << 30
RESERVE_FRACTION = 0.1
"""Tables leave 1 GiB of the disk free, or a tenth of a small disk. This is twice what uploads leave."""

DATASET = re.compile(r"[0-9a-f]{32}")
TABLE = re.compile(r"(backbone|[0-9a-f]{32})-[0-9a-f]+")
"""The form of a table's name: the owner of its model, and a digest of the settings that it was computed with."""


class EmbeddingCache:
    """The tables of a data directory. Methods that use files block, so call them in a thread."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._root = root
        self._max_bytes = max_bytes

    def path(self, dataset_uid: str, owner: str, digest: str) -> Path:
        """Return the path of a table. `owner` is the uid of the job that trained its model, or "backbone"."""
        return self._root / dataset_uid / f"{owner}-{digest}"

    def touch(self, table: Path) -> None:
        """Mark a table as used now. Create its directory if it is missing."""
        table.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.utime(table)

    def make_room(self, num_bytes: int, kept: Collection[Path]) -> None:
        """Remove tables, except those in `kept`, until `num_bytes` more bytes fit.

        Raises:
            ResourceExhausted: the bytes never fit (EMBEDDINGS_TOO_LARGE), the kept tables leave too little room
                (EMBEDDING_CACHE_FULL), or other files fill the disk (DISK_FULL).
        """
        if num_bytes > self._max_bytes:
            message = (
                f"the embeddings take {num_bytes:,} bytes, and embedding_cache_bytes allows {self._max_bytes:,} for "
                "all tables together"
            )
            raise ResourceExhausted("EMBEDDINGS_TOO_LARGE", message)
        sizes = {table: size_of(table) for table in self._tables()}
        used = sum(sizes.values())
        for table in sorted(sizes, key=_used_at):
            if used + num_bytes <= self._max_bytes and num_bytes <= self._free_bytes():
                return
            if table not in kept:
                remove(table)
                used -= sizes[table]
        if used + num_bytes > self._max_bytes:
            message = f"tables of embeddings in use take {used:,} of {self._max_bytes:,} bytes: try again later"
            raise ResourceExhausted("EMBEDDING_CACHE_FULL", message, retry_after_s=30.0)
        if num_bytes > self._free_bytes():
            raise ResourceExhausted("DISK_FULL", "the server's disk is full", retry_after_s=30.0)

    def _free_bytes(self) -> int:
        disk = os.statvfs(self._root)
        reserve = min(RESERVE_BYTES, int(disk.f_blocks * disk.f_frsize * RESERVE_FRACTION))
        return disk.f_bavail * disk.f_frsize - reserve

    def _tables(self) -> Iterator[Path]:
        return (table for table, _ in tables_below(self._root))


def tables_below(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield every table, and the owner in its name. Anything with another name is not ours and is left out."""
    for dataset in root.iterdir():
        if not DATASET.fullmatch(dataset.name) or dataset.is_symlink():
            continue
        with suppress(FileNotFoundError, NotADirectoryError):  # it has been removed, or is not a directory
            for table in dataset.iterdir():
                if (name := TABLE.fullmatch(table.name)) and not table.is_symlink():
                    yield table, name[1]


def tables_of_job(root: Path, uid: str) -> list[Path]:
    """Return the tables that were computed with a job's checkpoints."""
    return list(root.glob(f"*/{uid}-*"))


def size_of(table: Path) -> int:
    """Return the size of a table's files in bytes."""
    total = 0
    with suppress(FileNotFoundError), os.scandir(table) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                total += entry.stat().st_size
    return total


def remove(table: Path) -> None:
    """Remove a table. Readers that have it open can continue."""
    shutil.rmtree(table, ignore_errors=True)


def _used_at(table: Path) -> float:
    with suppress(FileNotFoundError):
        return table.stat().st_mtime
    return 0.0
