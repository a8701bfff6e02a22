"""The index files of a data set, kept up to date: written from the database as shards are sealed, and made again.

All images of a shard have consecutive positions, and a shard that is followed by another is never written again. So
rows leave the database once: into the index file of their shard, or into memory if their shard is still open.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sqlite3
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from manyview_server.errors import NotFound
from manyview_server.store import array_file
from manyview_server.store.array_file import ArrayFileDamaged
from manyview_server.store.database.database import Database
from manyview_server.store.images import shard_index
from manyview_server.store.images.shard_index import IndexedShard, Rows
from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.store.images.snapshots import SnapshotRows

log = logging.getLogger(__name__)

CHUNK_ROWS = 4096
"""The rows that one visit to the database thread reads: about 10 ms, for which commits wait."""
MAX_ADOPTED = 250
"""The index files that one visit to the database thread compares with the database, about 10 ms."""
HASHING_THREADS = 2
"""The threads that verify index files. SHA-256 and reading need no interpreter, so two take half the time of one."""
MAX_DATASETS = 32
"""The data sets whose open rows are kept in memory, at most 2.4 MB each."""

COLUMNS = ", ".join(SNAPSHOT_DTYPE.names or ())
ROWS = f"SELECT {COLUMNS} FROM image WHERE dataset = ? AND position > ? AND position <= ? ORDER BY position"
OUTER_ROWS = f"SELECT {COLUMNS} FROM image WHERE dataset = ? AND position IN (?, ?, ?) ORDER BY position"


class DatasetIndex:
    """The index of one data set. Its methods may be called by several tasks at the same time."""

    def __init__(self, database: Database, directory: Path, pk: int) -> None:
        self._database = database
        self._directory = directory
        self._pk = pk
        self._sealed: list[IndexedShard] = []
        self._loose: list[Rows] = []
        """The rows after those of `_sealed` that were read so far."""
        self._lock = asyncio.Lock()
        self._can_write = True

    async def rows(self, first: int, last: int) -> SnapshotRows:
        """Return the rows of the images at the positions from `first` to `last`, which the data set must have.

        Raises NotFound if the data set was deleted.
        """
        async with self._lock:
            self._can_write = True
            intact = await asyncio.to_thread(self._num_intact, first)
            if intact < len(self._sealed):
                log.warning(
                    "an index file was changed or removed: it is made again", extra={"of": str(self._directory)}
                )
                self._sealed, self._loose = self._sealed[:intact], []
            while self._num_rows < last:
                if not await self._adopt(last):
                    await self._read_shard(last)
            return self._snapshot(first, last)

    @property
    def _sealed_end(self) -> int:
        return self._sealed[-1].end if self._sealed else 0

    @property
    def _num_rows(self) -> int:
        return self._sealed_end + sum(map(len, self._loose))

    def _num_intact(self, first: int) -> int:
        """Return how many index files, from the first one on, are unchanged. Those of images before `first` are
        counted without a look at the disk."""
        for number, one in enumerate(self._sealed):
            if one.end > first:
                with suppress(OSError):
                    if array_file.stamp_of(shard_index.index_path(self._directory, one.shard)) == one.stamp:
                        continue
                return number
        return len(self._sealed)

    async def _adopt(self, last: int) -> int:
        """Use the index files that exist, as far as the database agrees with them. Return how many were added."""
        found = await asyncio.to_thread(self._found, last)
        if not found:
            return 0
        num_good = await self._count_good(found)
        old_end = self._sealed_end
        self._sealed += found[:num_good]
        if num_good:
            self._keep_from(self._sealed_end - old_end)
        return num_good

    def _found(self, last: int) -> list[IndexedShard]:
        """Return the intact index files that continue the known ones, up to position `last`."""
        found: list[IndexedShard] = []
        end, numbers = self._sealed_end, itertools.count(self._sealed[-1].shard + 1 if self._sealed else 0)
        with ThreadPoolExecutor(HASHING_THREADS) as threads:
            coming: deque[Future[IndexedShard | None]] = deque()
            while end < last:
                while len(coming) < 2 * HASHING_THREADS:
                    coming.append(threads.submit(self._intact, next(numbers)))
                one = coming.popleft().result()
                if one is None or one.first != end:
                    break
                found.append(one)
                end = one.end
        return found

    def _intact(self, shard: int) -> IndexedShard | None:
        """Return the index file of a shard after all of it was verified, or None if it is missing or damaged."""
        try:
            return shard_index.verified(self._directory, shard)
        except (ArrayFileDamaged, OSError):
            return None

    async def _count_good(self, found: Sequence[IndexedShard]) -> int:
        """Return how many of these index files, from the first one on, agree with the database.

        A file that agrees vouches for the one before it, which was compared with the database when it was written. So
        only the last one of each chain is compared. If one of these differs, all files are compared.
        """
        ends = [one for one, after in itertools.pairwise(found) if not after.vouches_for(one)] + [found[-1]]
        if len(ends) <= MAX_ADOPTED and await self._count_agreeing(ends) == len(ends):
            return len(found)
        return await self._count_agreeing(found)

    async def _count_agreeing(self, found: Sequence[IndexedShard]) -> int:
        num_good = 0
        for start in range(0, len(found), MAX_ADOPTED):
            part = found[start : start + MAX_ADOPTED]
            num_good += (added := await self._database.read(partial(_count_agreeing, pk=self._pk, found=part)))
            if added < len(part):
                break
        return num_good

    async def _read_shard(self, last: int) -> None:
        """Read rows from the database up to `last`, or until a shard is complete, and then write its index file."""
        while (start := self._num_rows) < last:
            stop = min(start + CHUNK_ROWS, last)
            rows = await self._database.read(partial(_read_rows, pk=self._pk, first=start, last=stop))
            if len(rows) != stop - start:
                raise NotFound("DATASET_NOT_FOUND", "the data set has been deleted")
            self._loose.append(rows)
            if self._can_write and rows["shard"][-1] != self._loose[0]["shard"][0]:
                await self._write_complete()
                return

    async def _write_complete(self) -> None:
        """Write the index file of each shard that is complete. If the disk refuses it, its rows stay in memory."""
        rows = self._joined()
        starts = [0, *(np.flatnonzero(np.diff(rows["shard"])) + 1).tolist()]
        for start, stop in itertools.pairwise(starts):
            try:
                one = await asyncio.to_thread(self._write, rows[start:stop])
            except OSError:
                log.exception("an index file could not be written", extra={"of": str(self._directory)})
                self._can_write = False
                break
            self._sealed.append(one)
            self._loose = [rows[stop:]]
        self._keep_from(0)

    def _write(self, rows: Rows) -> IndexedShard:
        """Write the index file after those that are known, which agree with the database. Raises OSError."""
        digest = self._sealed[-1].digest if self._sealed else b""
        return shard_index.write(self._directory, self._sealed_end, rows, digest)

    def _joined(self) -> Rows:
        """Return all loose rows."""
        if len(self._loose) > 1:
            self._loose = [np.concatenate(self._loose)]
        return self._loose[0] if self._loose else np.empty(0, SNAPSHOT_DTYPE)

    def _keep_from(self, start: int) -> None:
        """Keep the loose rows from the one numbered `start` on. Those before are in an index file now."""
        rows = self._joined()[start:].copy()  # a view would keep all of them in memory
        self._loose = [rows] if len(rows) else []

    def _snapshot(self, first: int, last: int) -> SnapshotRows:
        used = [one for one in self._sealed if one.end > first and one.first < last]
        start = max(first, used[-1].end if used else self._sealed_end)
        loose = self._joined()
        return SnapshotRows(
            directory=self._directory,
            first=first,
            last=last,
            shards=np.array([one.shard for one in used], np.int64),
            ends=np.array([one.end for one in used], np.int64),
            loose=loose[max(0, start - self._sealed_end) : max(0, last - self._sealed_end)],
        )


class DatasetIndexes:
    """The indexes of the data sets that were used last."""

    def __init__(self, database: Database, datasets_dir: Path) -> None:
        self._database = database
        self._datasets_dir = datasets_dir
        self._used: OrderedDict[int, DatasetIndex] = OrderedDict()

    def of(self, pk: int, uid: str) -> DatasetIndex:
        """Return the index of a data set."""
        if pk not in self._used:
            self._used[pk] = DatasetIndex(self._database, self._datasets_dir / uid, pk)
        self._used.move_to_end(pk)
        while len(self._used) > MAX_DATASETS:
            self._used.popitem(last=False)
        return self._used[pk]


def _read_rows(connection: sqlite3.Connection, pk: int, first: int, last: int) -> Rows:
    return np.array(connection.execute(ROWS, (pk, first, last)).fetchall(), SNAPSHOT_DTYPE)


def _count_agreeing(connection: sqlite3.Connection, pk: int, found: Sequence[IndexedShard]) -> int:
    """Return how many of these index files, from the first one on, begin and end with the shards of the database."""
    for number, one in enumerate(found):
        rows = connection.execute(OUTER_ROWS, (pk, one.first + 1, one.end, one.end + 1)).fetchall()
        outer = one.outer_rows[: min(2, one.end - one.first)].tolist()
        # The row after them is missing, or of the same shard, if the shard is not sealed.
        if rows[:-1] != outer or rows[-1][1] <= one.shard:
            return number
    return len(found)
