"""Embeddings of data sets on disk: a table for each data set and exact model, made of segments, never the only copy.

    data_dir/embeddings/<data set's uid>/<job's uid or "backbone">-<digest>/segment-00000000
                                                                           /pca-<number of images>-<digest>

A row belongs to the image at the same position of the data set, so that a table serves every version and grows with the
data set. A segment that is damaged, or that holds other images, counts as missing and is computed again. The front's
process writes and removes tables, and workers read them. A table is removed with its data set or job, and the least
recently used tables are removed when room is needed.

Shapes: n rows of a segment, N of a table, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manyview_server.store.embeddings import array_file
from manyview_server.store.embeddings.array_file import ArrayFileDamaged

SEGMENT_ROWS = 512

Rows = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


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

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, segment: Segment, image_ids: Numbers) -> None:
        """Write or replace the segment of these images, (n,).

        Raises:
            OSError: the table was removed (FileNotFoundError), or the disk is full or failing.
        """
        meta = {"errors": [[error.row, error.reason, error.message] for error in segment.errors]}
        arrays: dict[str, npt.NDArray[Any]] = {"image_ids": image_ids, "rows": segment.rows}
        array_file.write(self._path(segment.first // SEGMENT_ROWS), meta, arrays)

    def read(self, index: int, num_rows: int) -> Segment:
        """Read and verify the first `num_rows` rows of a segment. Raises SegmentDamaged."""
        try:
            file = array_file.read(self._path(index))
            rows, errors = file.arrays["rows"], _errors(file)
        except (ArrayFileDamaged, FileNotFoundError, KeyError) as error:
            raise SegmentDamaged(index, str(error)) from error
        if rows.ndim != 2 or rows.dtype != np.float32 or len(rows) < num_rows:
            raise SegmentDamaged(index, f"{rows.shape} of {rows.dtype}, but the length must be {num_rows}")
        kept = tuple(error for error in errors if error.row < num_rows)
        return Segment(first=index * SEGMENT_ROWS, rows=rows[:num_rows], errors=kept)

    def read_all(self, num_rows: int) -> Iterator[Segment]:
        """Yield the segments of the first `num_rows` rows. Raises SegmentDamaged."""
        for index, count in segments(num_rows):
            yield self.read(index, count)

    def count_held(self, image_ids: Numbers) -> list[int]:
        """Return for each segment how many of the images `image_ids`, (N,), it holds. See `count_held_in`."""
        parts = (image_ids[index * SEGMENT_ROWS :][:count] for index, count in segments(len(image_ids)))
        return [self.count_held_in(index, wanted) for index, wanted in enumerate(parts)]

    def count_held_in(self, index: int, wanted: Numbers) -> int:
        """Return how many of the images `wanted` the segment holds according to its header, or 0 if it holds others."""
        try:
            image_ids = array_file.peek(self._path(index), ["image_ids"]).arrays["image_ids"]
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
                errors = _errors(array_file.peek(self._path(index)))
            except (ArrayFileDamaged, FileNotFoundError) as error:
                raise SegmentDamaged(index, str(error)) from error
            found += sorted(index * SEGMENT_ROWS + error.row for error in errors if error.row < count)
        return np.array(found, np.int64)

    def drop(self, index: int) -> None:
        """Remove a segment, if it exists."""
        self._path(index).unlink(missing_ok=True)

    def pca_path(self, num_rows: int, digest: str) -> Path:
        """Return the path of principal components of the first rows.

        `digest` is that of the arguments they depend on.
        """
        return self.directory / f"pca-{num_rows}-{digest}"

    def _path(self, index: int) -> Path:
        return self.directory / f"segment-{index:08d}"


def segments(num_rows: int) -> Iterator[tuple[int, int]]:
    """Yield the index and the number of rows of each segment of a table."""
    for first in range(0, num_rows, SEGMENT_ROWS):
        yield first // SEGMENT_ROWS, min(SEGMENT_ROWS, num_rows - first)


def _errors(file: array_file.ArrayFile) -> list[RowError]:
    try:
        return [RowError(row=int(row), reason=reason, message=text) for row, reason, text in file.meta["errors"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ArrayFileDamaged("its errors are damaged") from error
