"""Snapshots: the first images of a data set, as a reference to where their rows are.

Rows of sealed shards are in index files, and the reference names those. Only rows of the open shard travel with it, so
that a snapshot takes as much room for a thousand million images as for a hundred thousand.

Workers read snapshots with this module too, so it does not import sqlite.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manyview_server.errors import Unavailable
from manyview_server.store.array_file import ArrayFileDamaged
from manyview_server.store.images import shard_index
from manyview_server.store.images.shard_index import Rows
from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.store.records import Dataset

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SnapshotRows:
    """The rows at the positions from `first` to `last` of a data set, of `shards.SNAPSHOT_DTYPE`.

    Methods read index files, so call them off the event loop. They raise Unavailable INDEX_DAMAGED if a file was
    damaged or removed after the snapshot was made. The next snapshot is whole again.
    """

    directory: Path
    first: int
    last: int
    shards: Numbers
    """(S,): the sealed shards with any of these rows."""
    ends: Numbers
    """(S,): the position after the last row of each."""
    loose: Rows
    """The rows that are in no index file: those after the last of `ends`."""

    @classmethod
    def of(cls, rows: Rows) -> SnapshotRows:
        """Return a snapshot of rows of which none is in an index file."""
        none = np.empty(0, np.int64)
        return cls(directory=Path(), first=0, last=len(rows), shards=none, ends=none, loose=rows)

    @classmethod
    def received(cls, directory: str, blobs: Sequence[bytes]) -> SnapshotRows:
        """Return the snapshot that arrived as `blobs`. `directory` is that of the data set."""
        loose = np.frombuffer(blobs[0], SNAPSHOT_DTYPE)
        if len(blobs) == 1:
            return cls.of(loose)
        first, last, *places = np.frombuffer(blobs[1], "<i8").tolist()
        shards, ends = np.array(places, np.int64).reshape(-1, 2).T
        return cls(directory=Path(directory), first=first, last=last, shards=shards, ends=ends, loose=loose)

    @property
    def blobs(self) -> tuple[bytes, ...]:
        """The snapshot for a message: its loose rows, and, unless these are all, which index files hold the others."""
        if not len(self.shards):
            return (self.loose.tobytes(),)
        places = np.stack([self.shards, self.ends], axis=1).ravel()
        return self.loose.tobytes(), np.array([self.first, self.last, *places], "<i8").tobytes()

    def __len__(self) -> int:
        return self.last - self.first

    def between(self, start: int, stop: int) -> Rows:
        """Return the rows at the positions from `start` to `stop`, which must be among these."""
        assert self.first <= start <= stop <= self.last
        found = np.empty(stop - start, SNAPSHOT_DTYPE)
        for shard, at, end in self._parts(start, stop):
            self._read_into(found[at - start : end - start], shard, at)
        return found

    def all(self) -> Rows:
        """Return all rows."""
        return self.between(self.first, self.last)

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return one field of all rows."""
        found = np.empty(len(self), SNAPSHOT_DTYPE[name])
        for shard, at, end in self._parts(self.first, self.last):
            rows = np.empty(end - at, SNAPSHOT_DTYPE)
            self._read_into(rows, shard, at)
            found[at - self.first : end - self.first] = rows[name]
        return found

    def _parts(self, start: int, stop: int) -> Iterator[tuple[int | None, int, int]]:
        """Yield the parts of the positions from `start` to `stop`, each with its shard. Loose rows have None."""
        at = start
        for number in range(np.searchsorted(self.ends, start, side="right"), len(self.shards)):
            if at == stop:
                return
            end = min(stop, int(self.ends[number]))
            yield int(self.shards[number]), at, end
            at = end
        yield None, at, stop

    def _read_into(self, target: Rows, shard: int | None, at: int) -> None:
        """Fill `target` with rows of one shard, or with loose ones, from position `at` on."""
        if shard is None:
            at -= int(self.ends[-1]) if len(self.ends) else self.first
            target[:] = self.loose[at : at + len(target)]
            return
        try:
            shard_index.read_into(target, self.directory, shard, at)
        except (ArrayFileDamaged, FileNotFoundError) as error:
            text = "the list of a data set's images changed on the disk while it was read: try again"
            raise Unavailable("INDEX_DAMAGED", text, retry_after_s=1.0) from error


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """The first images of a data set in the order of their commits, or only the last ones of these.

    The label of a row is the ordinal of its first appearance (see `DatasetStore.labels`), or -1 for none.
    """

    dataset: Dataset
    rows: SnapshotRows

    @property
    def version(self) -> int:
        """The number of images of this version of the data set. A version never changes."""
        return self.rows.last
