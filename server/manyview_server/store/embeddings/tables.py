"""Embeddings of data sets on disk: a table for each data set and exact model, made of segments, never the only copy.

    data_dir/embeddings/<data set's uid>/<job's uid or "backbone">-<digest>/segment-00000000
                                                                           /pca-<number of images>-<digest>

A row belongs to an image by its position in the data set, so that a table serves every version, and grows with the
data set. A segment that is damaged, or of other images, counts as missing, and is made again. Who makes tables owns
them: the front's process writes and removes, workers read. They go with their data set or job, and the least recently
used ones where room is needed.

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
from manyview_server.store.embeddings.array_file import BlockDamaged

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
    """Rows of a table, `first` and those behind it."""

    first: int
    rows: Rows
    """(n, D), NaN where there is an error."""
    errors: tuple[RowError, ...]


class SegmentDamaged(Exception):
    """Segment `index` is missing, damaged or too short: it is to be made again."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(f"segment {index}: {why}")
        self.index = index


class EmbeddingTable:
    """The files of one table. Any thread; one writer."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, segment: Segment, image_ids: Numbers) -> None:
        """Write or replace a segment of these images, (n,).

        Raises:
            OSError: FileNotFoundError where the table was removed; the disk is full or failing.
        """
        meta = {"errors": [[error.row, error.reason, error.message] for error in segment.errors]}
        arrays: dict[str, npt.NDArray[Any]] = {"image_ids": image_ids, "rows": segment.rows}
        array_file.write(self._path(segment.first // SEGMENT_ROWS), meta, arrays)

    def read(self, index: int, num_rows: int) -> Segment:
        """The first rows of a segment, verified. Raises SegmentDamaged."""
        try:
            block = array_file.read(self._path(index))
            rows, errors = block.arrays["rows"], _errors(block)
        except (BlockDamaged, FileNotFoundError, KeyError) as error:
            raise SegmentDamaged(index, str(error)) from error
        if rows.ndim != 2 or rows.dtype != np.float32 or len(rows) < num_rows:
            raise SegmentDamaged(index, f"{rows.shape} of {rows.dtype}, where {num_rows} rows are due")
        held = tuple(error for error in errors if error.row < num_rows)
        return Segment(first=index * SEGMENT_ROWS, rows=rows[:num_rows], errors=held)

    def read_all(self, num_rows: int) -> Iterator[Segment]:
        """The first `num_rows` rows, segment by segment. Raises SegmentDamaged."""
        for index, count in segments(num_rows):
            yield self.read(index, count)

    def held(self, image_ids: Numbers) -> list[int]:
        """How many of these images, (N,), each segment holds, as its header says; 0 where it holds others."""
        first = (image_ids[index * SEGMENT_ROWS :][:count] for index, count in segments(len(image_ids)))
        return [self.held_of(index, wanted) for index, wanted in enumerate(first)]

    def held_of(self, index: int, wanted: Numbers) -> int:
        """How many of the images `wanted` of one segment it holds."""
        try:
            image_ids = array_file.peek(self._path(index), ["image_ids"]).arrays["image_ids"]
        except (BlockDamaged, FileNotFoundError, KeyError):
            return 0
        num_rows = min(len(image_ids), len(wanted))
        return num_rows if np.array_equal(image_ids[:num_rows], wanted[:num_rows]) else 0

    def unreadable(self, num_rows: int) -> Numbers:
        """The rows without an embedding among the first `num_rows`, ascending. Raises SegmentDamaged."""
        found: list[int] = []
        for index, count in segments(num_rows):
            try:
                errors = _errors(array_file.peek(self._path(index)))
            except (BlockDamaged, FileNotFoundError) as error:
                raise SegmentDamaged(index, str(error)) from error
            found += sorted(index * SEGMENT_ROWS + error.row for error in errors if error.row < count)
        return np.array(found, np.int64)

    def drop(self, index: int) -> None:
        """Forget a segment."""
        self._path(index).unlink(missing_ok=True)

    def pca_path(self, num_rows: int, digest: str) -> Path:
        """Where principal components of the first rows lie, of which the digest tells how they were asked for."""
        return self.directory / f"pca-{num_rows}-{digest}"

    def _path(self, index: int) -> Path:
        return self.directory / f"segment-{index:08d}"


def segments(num_rows: int) -> Iterator[tuple[int, int]]:
    """Index and number of rows of each segment of a table."""
    for first in range(0, num_rows, SEGMENT_ROWS):
        yield first // SEGMENT_ROWS, min(SEGMENT_ROWS, num_rows - first)


def _errors(block: array_file.Block) -> list[RowError]:
    try:
        return [RowError(row=int(row), reason=reason, message=text) for row, reason, text in block.meta["errors"]]
    except (KeyError, TypeError, ValueError) as error:
        raise BlockDamaged("its errors are damaged") from error
