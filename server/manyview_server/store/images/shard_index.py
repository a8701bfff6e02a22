"""Index files: the rows of a sealed shard beside it, so that nobody needs to read them from the database.

`shard-00000042.idx` is an array file. It holds the rows of the shard's images in the order of their positions, the
position of the first one, and the SHA-256 of the index file before it. So a file that agrees with the database vouches
for the file before it. The database decides: an index file that is missing, damaged or of other images is written
again. Files are not synced, because their SHA-256 reveals what a power cut damaged.

Workers read index files with this module too, so it does not import sqlite.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manyview_server.store import array_file
from manyview_server.store.array_file import TEMPORARY_SUFFIX, ArrayFileDamaged, Stamp
from manyview_server.store.images.shards import SNAPSHOT_DTYPE

NAME = re.compile(rf"shard-([0-9]{{8,}})\.idx(-[0-9a-f]{{8}}{re.escape(TEMPORARY_SUFFIX)})?")
"""The name of an index file, or of one that was not finished."""
BEFORE = "sha256_of_the_file_before"

Rows = npt.NDArray[np.void]
"""(n,) of `SNAPSHOT_DTYPE`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IndexedShard:
    """A sealed shard with the images at the positions from `first` to `end`. Its file was intact at `stamp`."""

    shard: int
    first: int
    end: int
    outer_rows: Rows
    """(2,): its first and its last row."""
    stamp: Stamp
    digest: bytes
    """The SHA-256 of its file."""
    digest_before: bytes
    """The SHA-256 of the file of the shard before, when this one was written; empty if nothing is known about it."""

    def vouches_for(self, before: IndexedShard) -> bool:
        """Return whether `before` is the file that was there when this one was written."""
        return self.digest_before == before.digest and self.first == before.end


def index_path(directory: Path, shard: int) -> Path:
    """Return the path of a shard's index file in the directory of its data set."""
    return directory / f"shard-{shard:08d}.idx"


def write(directory: Path, first: int, rows: Rows, digest_before: bytes = b"") -> IndexedShard:
    """Write or replace the index file of a shard: all its rows, of which the first one is at position `first`.

    `digest_before` is the SHA-256 of the file before it, if that agrees with the database. Raises OSError. No file is
    left behind then.
    """
    shard = int(rows["shard"][0])
    path = index_path(directory, shard)
    digest = array_file.write(path, {"first": first, BEFORE: digest_before.hex()}, {"rows": rows})
    return _indexed(shard, first, rows, array_file.stamp_of(path), digest, digest_before)


def verified(directory: Path, shard: int) -> IndexedShard:
    """Read a whole index file and verify it. Raises ArrayFileDamaged or FileNotFoundError."""
    path = index_path(directory, shard)
    stamp = array_file.stamp_of(path)  # before the bytes are read: a file that is replaced now is verified again
    file = array_file.read(path)
    first, rows = _first(file.meta), file.arrays.get("rows", np.empty(0))
    if rows.dtype.itemsize != SNAPSHOT_DTYPE.itemsize or rows.ndim != 1:
        raise ArrayFileDamaged("it is no index file")
    rows = rows.view(SNAPSHOT_DTYPE)
    if not len(rows) or not (rows["shard"] == shard).all():
        raise ArrayFileDamaged("it holds no rows, or rows of another shard")
    return _indexed(shard, first, rows, stamp, file.digest, _digest_before(file.meta))


def read(directory: Path, shard: int, start: int, stop: int) -> Rows:
    """Return the rows at the positions from `start` to `stop` of an index file that was verified before.

    Raises ArrayFileDamaged or FileNotFoundError.
    """
    found = np.empty(stop - start, SNAPSHOT_DTYPE)
    read_into(found, directory, shard, start)
    return found


def read_into(target: Rows, directory: Path, shard: int, start: int) -> None:
    """Fill `target` with the rows at the positions from `start` on, as `read` does."""
    path = index_path(directory, shard)
    with array_file.opened(path) as file:
        first, rows = _first(file.meta), file.stored.get("rows")
        if rows is None or rows.row_bytes != SNAPSHOT_DTYPE.itemsize:
            raise ArrayFileDamaged("it is no index file")
        if not first <= start <= first + rows.shape[0] - len(target):
            stop = start + len(target)
            raise ArrayFileDamaged(f"{path.name}: it does not hold the positions from {start} to {stop}")
        file.read_into("rows", start - first, target)


def remove_from(directory: Path, shard: int) -> None:
    """Remove the index files of this shard and later ones, and files that were not finished."""
    for path in directory.iterdir() if directory.is_dir() else ():
        if (name := NAME.fullmatch(path.name)) and (name[2] or int(name[1]) >= shard):
            path.unlink(missing_ok=True)


def _indexed(shard: int, first: int, rows: Rows, stamp: Stamp, digest: bytes, digest_before: bytes) -> IndexedShard:
    return IndexedShard(
        shard=shard,
        first=first,
        end=first + len(rows),
        outer_rows=rows[[0, -1]],
        stamp=stamp,
        digest=digest,
        digest_before=digest_before,
    )


def _first(meta: Mapping[str, Any]) -> int:
    """Return the position of the first row."""
    first = meta.get("first")
    if type(first) is not int:
        raise ArrayFileDamaged("it is no index file")
    return first


def _digest_before(meta: Mapping[str, Any]) -> bytes:
    """Return the SHA-256 of the file before, which the files of older releases do not name."""
    try:
        return bytes.fromhex(meta.get(BEFORE, ""))
    except (TypeError, ValueError) as error:
        raise ArrayFileDamaged("it is no index file") from error
