"""Tables of embeddings. Missing rows are made by the embedder, segment by segment, and all callers share them.

A caller that needs a segment makes it. One segment of a table is made at a time, and other callers that need it find it
there. When a caller goes away, the segments that it made stay, and the next caller makes the rest.

Shapes: n rows of a segment, D features.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manyview_server.errors import Aborted, NotFound, ServiceError
from manyview_server.store.database.database import service_error_of_file
from manyview_server.store.embeddings.cache import EmbeddingCache, remove
from manyview_server.store.embeddings.tables import (
    BLOCK_SEGMENTS,
    SEGMENT_ROWS,
    EmbeddingTable,
    Segment,
    SegmentDamaged,
)
from manyview_server.store.images.snapshots import Snapshot
from manyview_server.store.store import Store
from manyview_server.supervise.embedders.embedder import EmbedderSupervisor
from manyview_server.supervise.embedders.segment_builder import SegmentBuilder, TableSpec

log = logging.getLogger(__name__)

MAX_REPAIRS = 3
"""One caller repairs the same segment at most so often."""
ID_BYTES = 8


@dataclass(slots=True, eq=False)
class TableUse:
    """The callers that use the same table, and the lock under which they make its segments."""

    making: asyncio.Lock = field(default_factory=asyncio.Lock)
    num_callers: int = 0


class EmbeddingTables:
    """The tables of a server."""

    def __init__(self, store: Store, embedder: EmbedderSupervisor, cache: EmbeddingCache) -> None:
        self._store = store
        self._embedder = embedder
        self._cache = cache
        self._open: dict[Path, TableUse] = {}
        self._making_room = asyncio.Lock()

    @asynccontextmanager
    async def open(self, spec: TableSpec, snapshot: Snapshot, first_row: int = 0) -> AsyncIterator[OpenTable]:
        """Open the table of these images, which is kept while it is open. Rows before `first_row` will not be read.

        Raises:
            ResourceExhausted: there is no room for it.
        """
        path = self._cache.path(snapshot.dataset.uid, spec.owner, spec.digest)
        use = self._open.setdefault(path, TableUse())
        use.num_callers += 1
        try:
            await asyncio.to_thread(self._cache.touch, path)
            builder = SegmentBuilder(self._store, self._embedder, spec, snapshot.dataset.uid)
            table = OpenTable(builder, snapshot, EmbeddingTable(path, spec.dtype), use.making)
            async with self._making_room:
                missing = await table.count_missing(first_row)
                if missing:
                    num_bytes = missing * (spec.num_features * spec.dtype.itemsize + ID_BYTES)
                    await asyncio.to_thread(self._cache.make_room, num_bytes, frozenset(self._open))
            yield table
        except OSError as error:
            if (visible := service_error_of_file(error)) is not None:
                raise visible from error
            raise
        finally:
            use.num_callers -= 1
            if not use.num_callers:
                del self._open[path]
            await asyncio.shield(self._forget_deleted(snapshot, path))

    async def _forget_deleted(self, snapshot: Snapshot, path: Path) -> None:
        """Remove the table if its data set was deleted while it was made."""
        try:
            found = await self._store.datasets.get(snapshot.dataset.dataset_id)
            gone = found.uid != snapshot.dataset.uid
        except NotFound:
            gone = True
        if gone:
            await asyncio.to_thread(remove, path.parent)


class OpenTable:
    """A table, as one caller uses it."""

    def __init__(
        self, builder: SegmentBuilder, snapshot: Snapshot, table: EmbeddingTable, making: asyncio.Lock
    ) -> None:
        self._builder = builder
        self._making = making
        self._table = table
        self._num_made: list[int] = []
        """The rows of each segment that exist."""
        self._num_in_work = 0
        """The rows that have come of the segment that is being made."""
        self._repairs: dict[int, int] = {}
        self.snapshot = snapshot

    @property
    def directory(self) -> Path:
        """The directory of its files."""
        return self._table.directory

    def pca_path(self, digest: str) -> Path:
        """The file of principal components of these images."""
        return self._table.pca_path(self.num_rows, digest)

    @property
    def num_rows(self) -> int:
        """The rows of this caller, one for each image of its version."""
        return self.snapshot.version

    @property
    def num_done(self) -> int:
        """The rows that exist by now."""
        return min(self.num_rows, sum(self._num_made) + self._num_in_work)

    @property
    def is_starting(self) -> bool:
        """Is the process that makes the missing rows starting right now?"""
        return self._builder.is_starting

    async def count_missing(self, first_row: int) -> int:
        """Look which rows exist, and return how many are missing from `first_row` on."""
        self._num_made = await asyncio.to_thread(lambda: self._table.count_held(self.num_rows, self._image_ids))
        first = first_row // SEGMENT_ROWS
        return sum(self._size(index) - made for index, made in enumerate(self._num_made) if index >= first)

    async def complete(self) -> None:
        """Make all missing segments, and pack those that are not, as in tables of older servers.

        Raises the errors of `segment`.
        """
        for index in range(len(self._num_made)):
            await self._make(index)
        for first in await asyncio.to_thread(self._table.unpacked, self.num_rows):
            async with self._making:
                await self._pack(first)

    async def segment(self, index: int) -> Segment:
        """Return a segment. It is made if it is missing or damaged.

        Raises:
            Aborted: EMBEDDINGS_GONE, the data set or the job was deleted in the meantime.
            ServiceError: the error that the embedder answers about the model; DISK_FULL; UNAVAILABLE if it keeps dying.
        """
        while True:
            await self._make(index)
            try:
                return await asyncio.to_thread(self._table.read, index, self._size(index))
            except SegmentDamaged as error:
                await self.repair(error)

    async def unreadable(self) -> npt.NDArray[np.int64]:
        """Return the rows without an embedding. The table must be complete."""
        while True:
            try:
                return await asyncio.to_thread(self._table.unreadable, self.num_rows)
            except SegmentDamaged as error:
                await self.repair(error)

    async def repair(self, damage: SegmentDamaged) -> None:
        """Make a damaged segment again. Raises ServiceError INTERNAL if it is damaged again and again."""
        index = damage.index
        self._repairs[index] = self._repairs.get(index, 0) + 1
        log.error("a segment of embeddings is damaged", extra={"table": str(self.directory), "why": str(damage)})
        if not self.directory.exists():
            raise _gone()
        if self._repairs[index] > MAX_REPAIRS:
            raise ServiceError("INTERNAL", "the server's disk damages the embeddings that are written to it")
        await asyncio.to_thread(self._table.drop, index)
        self._num_made[index] = 0
        await self._make(index)

    def _image_ids(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        return self.snapshot.rows.between(start, stop)["image_id"].astype(np.int64)

    def _size(self, index: int) -> int:
        return min(SEGMENT_ROWS, self.num_rows - index * SEGMENT_ROWS)

    async def _make(self, index: int) -> None:
        size = self._size(index)
        if self._num_made[index] >= size:
            return
        async with self._making:
            first = index * SEGMENT_ROWS
            images = await asyncio.to_thread(self.snapshot.rows.between, first, first + size)
            image_ids = images["image_id"].astype(np.int64)
            self._num_made[index] = await asyncio.to_thread(self._table.count_held_in, index, image_ids)
            if self._num_made[index] < size:
                segment = await self._build(index, images)
                try:
                    await asyncio.to_thread(self._table.write, segment, image_ids)
                except FileNotFoundError as error:
                    raise _gone() from error
                self._num_made[index] = size
                await self._pack(index)

    async def _build(self, index: int, images: npt.NDArray[np.void]) -> Segment:
        """Return the whole segment, with the rows that exist already."""
        found = await self._incomplete(index)
        num_found = len(found.rows) if found else 0
        try:
            added = await self._builder.build(images[num_found:], index * SEGMENT_ROWS + num_found, self._count)
        finally:
            self._num_in_work = 0
        parts = [found.rows, added.rows] if found else [added.rows]
        rows = await asyncio.to_thread(np.concatenate, parts)
        later = (replace(error, row=error.row + num_found) for error in added.errors)
        errors = (*(found.errors if found else ()), *later)
        return Segment(first=index * SEGMENT_ROWS, rows=rows, errors=errors)

    async def _pack(self, index: int) -> None:
        """Make one file of the segments around this one, if they are complete. Without it, they can be used as well."""
        first = index - index % BLOCK_SEGMENTS
        if self._num_made[first : first + BLOCK_SEGMENTS] != BLOCK_SEGMENTS * [SEGMENT_ROWS]:
            return
        try:
            await asyncio.to_thread(self._table.pack, index)
        except (OSError, SegmentDamaged):
            log.exception("segments of embeddings could not be packed", extra={"table": str(self.directory)})

    async def _incomplete(self, index: int) -> Segment | None:
        """Return the rows that exist of a segment that is not complete, or None."""
        if not self._num_made[index]:
            return None
        try:
            return await asyncio.to_thread(self._table.read, index, self._num_made[index])
        except SegmentDamaged as error:
            log.error("a segment of embeddings is damaged", extra={"table": str(self.directory), "why": str(error)})
            return None

    def _count(self, num_rows: int) -> None:
        self._num_in_work += num_rows


def _gone() -> Aborted:
    return Aborted("EMBEDDINGS_GONE", "the data set or the train job was deleted in the meantime")
