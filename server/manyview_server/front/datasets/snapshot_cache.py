"""Keep recently used snapshots of data sets in memory. A version of a data set is always the same snapshot.

Reading a million rows keeps the database's thread busy for a second, and a client often makes several calls on the
embeddings of one data set.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from manyview_server.store.images.datasets import DatasetStore
from manyview_server.store.records import Dataset, Snapshot

MAX_BYTES = 128 << 20
"""The most bytes of all snapshots that are kept, enough for 3.7 million images."""


class SnapshotCache:
    """Reads snapshots, and keeps the most recently used ones."""

    def __init__(self, datasets: DatasetStore, max_bytes: int = MAX_BYTES) -> None:
        self._datasets = datasets
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[str, int], Snapshot] = OrderedDict()

    async def get(self, dataset: Dataset, version: int) -> Snapshot:
        """Return the first `version` images of a data set. Pass a record that was read just now. Raises NotFound."""
        key = (dataset.uid, version)
        if (kept := self._kept.get(key)) is None:
            kept = await self._datasets.snapshot(dataset.dataset_id, version)
            # The name may belong to another data set by now.
            key = (kept.dataset.uid, version)
            self._kept[key] = kept
        else:
            kept = replace(kept, dataset=dataset)
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and sum(one.array.nbytes for one in self._kept.values()) > self._max_bytes:
            self._kept.popitem(last=False)
        if kept.array.nbytes > self._max_bytes:
            self._kept.clear()
        return kept
