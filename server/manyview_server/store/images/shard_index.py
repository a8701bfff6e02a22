"""Index files: the rows of a sealed shard beside it, so that nobody needs to read them from the database.

`shard-00000042.idx` is an array file. It holds the rows of the shard's images in the order of their positions, and the
position of the first one. The database stays the truth: an index file that is missing, damaged or of other images is
written again. Files are not synced, because their SHA-256 reveals what a power cut damaged.

Workers read index files with this module too, so it does not import sqlite.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manyview_server.store import array_file
from manyview_server.store.array_file import TEMPORARY_SUFFIX, ArrayFile, ArrayFileDamaged, Stamp
from manyview_server.store.images.shards import SNAPSHOT_DTYPE

NAME = re.compile(rf"shard-([0-9]{{8,}})\.idx(-[0-9a-f]{{8}}{re.escape(TEMPORARY_SUFFIX)})?")
"""The name of an index file, or of one that was not finished."""

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


def index_path(directory: Path, shard: int) -> Path:
    """Return the path of a shard's index file in the directory of its data set."""
    return directory / f"shard-{shard:08d}.idx"


def write(directory: Path, first: int, rows: Rows) -> IndexedShard:
    """Write or replace the index file of a shard: all its rows, of which the first one is at position `first`.

    Raises OSError. No file is left behind then.
    """
    shard = int(rows["shard"][0])
    path = index_path(directory, shard)
    array_file.write(path, {"first": first}, {"rows": rows})
    return _indexed(shard, first, rows, array_file.stamp_of(path))


def verified(directory: Path, shard: int) -> IndexedShard:
    """Read a whole index file and verify it. Raises ArrayFileDamaged or FileNotFoundError."""
    path = index_path(directory, shard)
    stamp = array_file.stamp_of(path)  # before the bytes are read: a file that is replaced now is verified again
    first, rows = _contents(array_file.read(path))
    if not len(rows) or not (rows["shard"] == shard).all():
        raise ArrayFileDamaged("it holds no rows, or rows of another shard")
    return _indexed(shard, first, rows, stamp)


def read(directory: Path, shard: int, start: int, stop: int) -> Rows:
    """Return the rows at the positions from `start` to `stop` of an index file that was verified before.

    Raises ArrayFileDamaged or FileNotFoundError.
    """
    path = index_path(directory, shard)
    first, _ = _contents(array_file.peek(path, ["rows"], slice(0, 0)))
    _, rows = _contents(array_file.peek(path, ["rows"], slice(start - first, stop - first)))
    if start < first or len(rows) != stop - start:
        raise ArrayFileDamaged(f"{path.name}: it does not hold the positions from {start} to {stop}")
    return rows


def remove_from(directory: Path, shard: int) -> None:
    """Remove the index files of this shard and later ones, and files that were not finished."""
    for path in directory.iterdir() if directory.is_dir() else ():
        if (name := NAME.fullmatch(path.name)) and (name[2] or int(name[1]) >= shard):
            path.unlink(missing_ok=True)


def _indexed(shard: int, first: int, rows: Rows, stamp: Stamp) -> IndexedShard:
    return IndexedShard(shard=shard, first=first, end=first + len(rows), outer_rows=rows[[0, -1]], stamp=stamp)


def _contents(file: ArrayFile) -> tuple[int, Rows]:
    """Return the position of the first row, and the rows that were read."""
    first, rows = file.meta.get("first"), file.arrays.get("rows")
    if type(first) is not int or rows is None or rows.dtype.itemsize != SNAPSHOT_DTYPE.itemsize or rows.ndim != 1:
        raise ArrayFileDamaged("it is no index file")
    return first, rows.view(SNAPSHOT_DTYPE)
