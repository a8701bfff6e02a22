"""Embeddings of data sets on disk: a table for each data set and exact model, never the only copy.

    data_dir/embeddings/<data set's uid>/<job's uid or "backbone">-<digest>/block-00000000
                                                                           /segment-00000016
                                                                           /pca-<number of images>-<digest>

A row belongs to the image at the same position of the data set, so that a table serves every version and grows with the
data set. Rows are made in segments of 512. Sixteen complete segments become one file, a block of 8,192 rows. A segment
that is damaged, or that holds other images, counts as missing and is computed again. The front's process writes and
removes tables, and workers read them. A table is removed with its data set or job, and the least recently used tables
are removed when room is needed.

Shapes: n rows of a segment, N of a table, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from manyview_server.store import array_file
from manyview_server.store.array_file import ArrayFile, ArrayFileDamaged, Stamp

SEGMENT_ROWS = 512
BLOCK_SEGMENTS = 16
IDS_AT_ONCE = 128 * SEGMENT_ROWS
READ_TYPES = (np.float32, np.float16)

Rows = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowError:
    """Why a row is NaN; `row` counts within its segment."""

    row: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Consecutive rows of a table. `first` is the number of the first one."""

    first: int
    rows: Rows
    """The embeddings, (n, D). The rows of `errors` are NaN."""
    errors: tuple[RowError, ...]


class SegmentDamaged(Exception):
    """Segment `index` is missing, damaged or too short, and must be computed again."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(f"segment {index}: {why}")
        self.index = index


class EmbeddingTable:
    """The files of one table. Any thread; one writer."""

    def __init__(self, directory: Path, data_type: npt.DTypeLike = np.float32) -> None:
        """`data_type` is the number format in which rows are written, float32 or float16. Both are read."""
        self.directory = directory
        self._data_type = data_type
        self._verified: dict[Path, Stamp] = {}
        """The blocks whose bytes were verified, when they had this stamp."""

    def write(self, segment: Segment, image_ids: Numbers) -> None:
        """Write or replace the segment of these images, (n,). A block with the segment loses its other segments.

        Raises:
            OSError: the table was removed (FileNotFoundError), or the disk is full or failing.
        """
        index = segment.first // SEGMENT_ROWS
        meta = {"errors": [[error.row, error.reason, error.message] for error in segment.errors]}
        arrays: dict[str, npt.NDArray[Any]] = {"image_ids": image_ids, "rows": segment.rows.astype(self._data_type)}
        array_file.write(self._path(index), meta, arrays)
        self._block_path(index).unlink(missing_ok=True)

    def pack(self, index: int) -> None:
        """Make one block of the segments around `index`, which must be complete, unless they are one already.

        Raises:
            SegmentDamaged.
            OSError: the table was removed, or the disk is full or failing. The segments stay as they are.
        """
        block = self._block_path(index)
        if block.exists():
            return
        first = index - index % BLOCK_SEGMENTS
        numbers = range(first, first + BLOCK_SEGMENTS)
        held, errors = [], []
        rows: npt.NDArray[Any] = np.empty((0, 0))
        for number in numbers:
            part = self.read(number, SEGMENT_ROWS)
            if number == first:
                rows = np.empty((BLOCK_SEGMENTS * SEGMENT_ROWS, part.rows.shape[1]), self._data_type)
            start = part.first - first * SEGMENT_ROWS
            rows[start : start + SEGMENT_ROWS] = part.rows
            errors += [[start + error.row, error.reason, error.message] for error in part.errors]
            held.append(array_file.peek(self._path(number), ["image_ids"]).arrays["image_ids"])
        array_file.write(block, {"errors": errors}, {"image_ids": np.concatenate(held), "rows": rows})
        for number in numbers:
            self._path(number).unlink(missing_ok=True)

    def unpacked(self, num_rows: int) -> list[int]:
        """Return the first segment of each block that is missing, although the table has all its rows.

        Tables of older servers have no blocks.
        """
        names = {path.name for path in self.directory.iterdir()} if self.directory.is_dir() else set()
        starts = range(0, num_rows // SEGMENT_ROWS - BLOCK_SEGMENTS + 1, BLOCK_SEGMENTS)
        return [first for first in starts if self._block_path(first).name not in names]

    def read(self, index: int, num_rows: int) -> Segment:
        """Read and verify the first `num_rows` rows of a segment. Raises SegmentDamaged."""
        try:
            rows, errors = self._load(index, self._verified_part)
        except (ArrayFileDamaged, FileNotFoundError, KeyError) as error:
            raise SegmentDamaged(index, str(error)) from error
        if rows.ndim != 2 or rows.dtype not in READ_TYPES or len(rows) < num_rows:
            raise SegmentDamaged(index, f"{rows.shape} of {rows.dtype}, but the length must be {num_rows}")
        kept = tuple(error for error in errors if error.row < num_rows)
        return Segment(first=index * SEGMENT_ROWS, rows=rows[:num_rows].astype(np.float32, copy=False), errors=kept)

    def read_all(self, num_rows: int) -> Iterator[Segment]:
        """Yield the segments of the first `num_rows` rows. Raises SegmentDamaged."""
        for index, count in segments(num_rows):
            yield self.read(index, count)

    def count_held(self, num_rows: int, image_ids: Callable[[int, int], Numbers]) -> list[int]:
        """Return for each segment of the first `num_rows` rows how many of its images it holds. See `count_held_in`.

        `image_ids(start, stop)` returns the images of these rows.
        """
        held = []
        for start in range(0, num_rows, IDS_AT_ONCE):
            wanted = image_ids(start, min(start + IDS_AT_ONCE, num_rows))
            for first in range(0, len(wanted), SEGMENT_ROWS):
                index = (start + first) // SEGMENT_ROWS
                held.append(self.count_held_in(index, wanted[first : first + SEGMENT_ROWS]))
        return held

    def count_held_in(self, index: int, wanted: Numbers) -> int:
        """Return how many of the images `wanted` the segment holds according to its header, or 0 if it holds others."""

        def load(path: Path, part: slice) -> Numbers:
            return array_file.peek(path, ["image_ids"], part).arrays["image_ids"]

        try:
            image_ids = self._load(index, load)
        except (ArrayFileDamaged, FileNotFoundError, KeyError):
            return 0
        num_rows = min(len(image_ids), len(wanted))
        return num_rows if np.array_equal(image_ids[:num_rows], wanted[:num_rows]) else 0

    def unreadable(self, num_rows: int) -> Numbers:
        """Return the numbers of the rows without an embedding among the first `num_rows`, ascending.

        Raises SegmentDamaged.
        """
        found: list[int] = []
        for index, count in segments(num_rows):
            try:
                errors = self._load(index, lambda path, part: _errors(array_file.peek(path), part))
            except (ArrayFileDamaged, FileNotFoundError) as error:
                raise SegmentDamaged(index, str(error)) from error
            found += sorted(index * SEGMENT_ROWS + error.row for error in errors if error.row < count)
        return np.array(found, np.int64)

    def drop(self, index: int) -> None:
        """Remove a segment, if it exists, or the block with it."""
        self._path(index).unlink(missing_ok=True)
        self._block_path(index).unlink(missing_ok=True)

    def pca_path(self, num_rows: int, digest: str) -> Path:
        """Return the path of principal components of the first rows.

        `digest` is that of the arguments they depend on.
        """
        return self.directory / f"pca-{num_rows}-{digest}"

    def _load(self, index: int, load: Callable[[Path, slice], T]) -> T:
        """Return `load` of the file with a segment, and of the rows of the file that are the segment's."""
        start = index % BLOCK_SEGMENTS * SEGMENT_ROWS
        try:
            return load(self._block_path(index), slice(start, start + SEGMENT_ROWS))
        except FileNotFoundError:
            pass
        try:
            return load(self._path(index), array_file.ALL_ROWS)
        except FileNotFoundError:  # perhaps it has become a part of a block just now
            return load(self._block_path(index), slice(start, start + SEGMENT_ROWS))

    def _verified_part(self, path: Path, part: slice) -> tuple[npt.NDArray[Any], list[RowError]]:
        """Return rows of a file and their errors. A block is verified once, and read part by part."""
        if part == array_file.ALL_ROWS:
            file = array_file.read(path)
        else:
            if self._verified.get(path) != array_file.stamp_of(path):
                self._verified[path] = array_file.verify(path)
            file = array_file.peek(path, ["rows"], part)
        return file.arrays["rows"], _errors(file, part)

    def _path(self, index: int) -> Path:
        return self.directory / f"segment-{index:08d}"

    def _block_path(self, index: int) -> Path:
        return self.directory / f"block-{index // BLOCK_SEGMENTS:08d}"


def segments(num_rows: int) -> Iterator[tuple[int, int]]:
    """Yield the index and the number of rows of each segment of a table."""
    for first in range(0, num_rows, SEGMENT_ROWS):
        yield first // SEGMENT_ROWS, min(SEGMENT_ROWS, num_rows - first)


def _errors(file: ArrayFile, part: slice) -> list[RowError]:
    """Return the errors of these rows of a file. Their numbers count within the part."""
    try:
        errors = [RowError(row=int(row), reason=reason, message=text) for row, reason, text in file.meta["errors"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ArrayFileDamaged("its errors are damaged") from error
    if part == array_file.ALL_ROWS:
        return errors
    return [replace(one, row=one.row - part.start) for one in errors if part.start <= one.row < part.stop]
