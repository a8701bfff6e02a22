"""Tables of embeddings: made by the embedder where rows are missing, segment by segment, shared by all who ask.

Whoever waits for a segment makes it, one at a time of each table: who else wants it finds it there. A caller that goes
away leaves what is made so far, and the next one goes on from there.

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
from manyview_server.store.database.database import translated_file
from manyview_server.store.embeddings.cache import EmbeddingCache, remove
from manyview_server.store.embeddings.tables import SEGMENT_ROWS, EmbeddingTable, Segment, SegmentDamaged
from manyview_server.store.records import Snapshot
from manyview_server.store.store import Store
from manyview_server.supervise.embedders.embedder import EmbedderSupervisor
from manyview_server.supervise.embedders.segment_builder import StoredEmbedder, TableSpec

log = logging.getLogger(__name__)

MAX_REPAIRS = 3
"""Of a segment that is damaged again and again, for one caller."""
FLOAT_BYTES = 4


@dataclass(slots=True, eq=False)
class Shared:
    """What callers with the same table share."""

    making: asyncio.Lock = field(default_factory=asyncio.Lock)
    num_callers: int = 0


class EmbeddingTables:
    """The tables of a server."""

    def __init__(self, store: Store, embedder: EmbedderSupervisor, cache: EmbeddingCache) -> None:
        self._store = store
        self._embedder = embedder
        self._cache = cache
        self._open: dict[Path, Shared] = {}
        self._making_room = asyncio.Lock()

    @asynccontextmanager
    async def open(self, spec: TableSpec, snapshot: Snapshot, first_row: int = 0) -> AsyncIterator[OpenTable]:
        """The table of these images, which is kept while it is open; rows before `first_row` are not asked for.

        Raises:
            ResourceExhausted: there is no room for it.
        """
        path = self._cache.path(snapshot.dataset.uid, spec.owner, spec.digest)
        shared = self._open.setdefault(path, Shared())
        shared.num_callers += 1
        try:
            await asyncio.to_thread(self._cache.touch, path)
            embedder = StoredEmbedder(self._store, self._embedder, spec, snapshot.dataset.uid)
            table = OpenTable(embedder, snapshot, EmbeddingTable(path), shared.making)
            async with self._making_room:
                missing = await table.look(first_row)
                if missing:
                    num_bytes = missing * (spec.num_features * FLOAT_BYTES + 8)
                    await asyncio.to_thread(self._cache.make_room, num_bytes, frozenset(self._open))
            yield table
        except OSError as error:
            if (visible := translated_file(error)) is not None:
                raise visible from error
            raise
        finally:
            shared.num_callers -= 1
            if not shared.num_callers:
                del self._open[path]
            await asyncio.shield(self._forget_deleted(snapshot, path))

    async def _forget_deleted(self, snapshot: Snapshot, path: Path) -> None:
        """The data set may have been deleted while its table was made: leave nothing behind."""
        try:
            found = await self._store.datasets.get(snapshot.dataset.dataset_id)
            gone = found.uid != snapshot.dataset.uid
        except NotFound:
            gone = True
        if gone:
            await asyncio.to_thread(remove, path.parent)


class OpenTable:
    """A table as one caller uses it."""

    def __init__(
        self, embedder: StoredEmbedder, snapshot: Snapshot, table: EmbeddingTable, making: asyncio.Lock
    ) -> None:
        self._embedder = embedder
        self._making = making
        self._table = table
        self._held: list[int] = []
        self._making_now = 0
        self._repairs: dict[int, int] = {}
        self.snapshot = snapshot

    @property
    def directory(self) -> Path:
        """Where its files lie."""
        return self._table.directory

    def pca_path(self, digest: str) -> Path:
        """Where principal components of these images lie."""
        return self._table.pca_path(self.num_rows, digest)

    @property
    def num_rows(self) -> int:
        """Rows that this caller asks for: the images of its version."""
        return len(self.snapshot.array)

    @property
    def num_done(self) -> int:
        """How many of them there are by now."""
        return min(self.num_rows, sum(self._held) + self._making_now)

    async def look(self, first_row: int) -> int:
        """See what there is; gives the number of rows to be made from `first_row` on."""
        self._held = await asyncio.to_thread(lambda: self._table.count_held(self._image_ids))
        first = first_row // SEGMENT_ROWS
        return sum(self._due(index) - held for index, held in enumerate(self._held) if index >= first)

    async def complete(self) -> None:
        """Make all that is missing. Raises as `segment` does."""
        for index in range(len(self._held)):
            await self._make(index)

    async def segment(self, index: int) -> Segment:
        """Rows of the table, made where they are missing or damaged.

        Raises:
            Aborted: EMBEDDINGS_GONE, the data set or the job was deleted meanwhile.
            ServiceError: what the embedder says of the model; DISK_FULL; UNAVAILABLE where it keeps dying.
        """
        while True:
            await self._make(index)
            try:
                return await asyncio.to_thread(self._table.read, index, self._due(index))
            except SegmentDamaged as error:
                await self.repair(error)

    async def unreadable(self) -> npt.NDArray[np.int64]:
        """The rows without an embedding. The table is complete."""
        while True:
            try:
                return await asyncio.to_thread(self._table.unreadable, self.num_rows)
            except SegmentDamaged as error:
                await self.repair(error)

    async def repair(self, damage: SegmentDamaged) -> None:
        """Make a segment again. Raises DataLoss where it does not last."""
        index = damage.index
        self._repairs[index] = self._repairs.get(index, 0) + 1
        log.error("a segment of embeddings is damaged", extra={"table": str(self.directory), "why": str(damage)})
        if not self.directory.exists():
            raise _gone()
        if self._repairs[index] > MAX_REPAIRS:
            raise ServiceError("INTERNAL", "the server's disk does not keep the embeddings")
        await asyncio.to_thread(self._table.drop, index)
        self._held[index] = 0
        await self._make(index)

    @property
    def _image_ids(self) -> npt.NDArray[np.int64]:
        return self.snapshot.array["image_id"].astype(np.int64)

    def _due(self, index: int) -> int:
        return min(SEGMENT_ROWS, self.num_rows - index * SEGMENT_ROWS)

    async def _make(self, index: int) -> None:
        due = self._due(index)
        if self._held[index] >= due:
            return
        async with self._making:
            first = index * SEGMENT_ROWS
            images = self.snapshot.array[first : first + due]
            image_ids = images["image_id"].astype(np.int64)
            self._held[index] = await asyncio.to_thread(self._table.count_held_in, index, image_ids)
            if self._held[index] < due:
                segment = await self._embedded(index, images)
                try:
                    await asyncio.to_thread(self._table.write, segment, image_ids)
                except FileNotFoundError as error:
                    raise _gone() from error
                self._held[index] = due

    async def _embedded(self, index: int, images: npt.NDArray[np.void]) -> Segment:
        """The whole segment, with the rows of it that there are already."""
        before = await self._begun(index)
        held = len(before.rows) if before else 0
        try:
            made = await self._embedder.rows(images[held:], self._count)
        finally:
            self._making_now = 0
        parts = [before.rows, made.rows] if before else [made.rows]
        rows = await asyncio.to_thread(np.concatenate, parts)
        later = (replace(error, row=error.row + held) for error in made.errors)
        errors = (*(before.errors if before else ()), *later)
        return Segment(first=index * SEGMENT_ROWS, rows=rows, errors=errors)

    async def _begun(self, index: int) -> Segment | None:
        """What there is of a segment that is not complete."""
        if not self._held[index]:
            return None
        try:
            return await asyncio.to_thread(self._table.read, index, self._held[index])
        except SegmentDamaged as error:
            log.error("a segment of embeddings is damaged", extra={"table": str(self.directory), "why": str(error)})
            return None

    def _count(self, num_rows: int) -> None:
        self._making_now += num_rows


def _gone() -> Aborted:
    return Aborted("EMBEDDINGS_GONE", "the data set or the train job was deleted meanwhile")
