"""The open shard writers, one for each data set that is being uploaded to. On the database thread only."""

from __future__ import annotations

from pathlib import Path

from manyview_server.store.images.shards import Position, ShardWriter

# A writer holds one open file.
MAX_OPEN = 64


class ShardWriters:
    """Shard writers by their data set's row."""

    def __init__(self, datasets_dir: Path) -> None:
        self._datasets_dir = datasets_dir
        self._writers: dict[int, ShardWriter] = {}

    def get(self, dataset: int, uid: str, committed: Position) -> ShardWriter:
        """The data set's writer; a new one goes on from `committed`."""
        writer = self._writers.pop(dataset, None)
        if writer is None:
            writer = ShardWriter(self._datasets_dir / uid, committed)
        # Back at the end: the first is the one that was unused for longest.
        self._writers[dataset] = writer
        return writer

    def trim(self) -> None:
        """Between transactions: close the files that were unused for longest."""
        while len(self._writers) > MAX_OPEN:
            self.forget(next(iter(self._writers)))

    def forget(self, dataset: int) -> None:
        """Close the data set's writer, where there is one."""
        writer = self._writers.pop(dataset, None)
        if writer is not None:
            writer.close()

    def close(self) -> None:
        """Close them all."""
        for dataset in list(self._writers):
            self.forget(dataset)
