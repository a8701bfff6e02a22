"""A data directory: `Store.open`, six collections, `close`.

    data_dir/LOCK                        one server per data directory
    data_dir/manyview.sqlite             registry, image index, jobs, event log
    data_dir/datasets/<uid>/shard-*.tar  the images
    data_dir/datasets/<uid>/shard-*.idx  their rows, which can be read from the database again
    data_dir/jobs/<uid>/checkpoints/     the checkpoints
    data_dir/embeddings/<uid>/           embeddings of a data set, which can be computed again
    data_dir/weights/NAME.safetensors    the operator's own weights for plain backbones
    data_dir/BALLAST                     a file that is removed when the disk is full
    data_dir/GENERATION                  a counter by which a start notices an older database
    data_dir/set-aside/TIME/             data that a start found and the database does not know

The methods are asynchronous, and all of them run on one database thread. The collections `datasets`, `uploads`, `jobs`,
`checkpoints`, `events` and `idempotency_log` document their own methods.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from manyview_server.store.database.ballast import Ballast
from manyview_server.store.database.database import Database
from manyview_server.store.deletions import Deletions
from manyview_server.store.idempotency_log import IdempotencyLog
from manyview_server.store.images.datasets import DatasetStore
from manyview_server.store.images.group_limit import ANY_GROUP, GroupLimit
from manyview_server.store.images.ingest import Ingest
from manyview_server.store.images.shard_writers import ShardWriters
from manyview_server.store.images.uploads import UploadStore
from manyview_server.store.jobs.checkpoint_store import CheckpointStore
from manyview_server.store.jobs.events import EventLog
from manyview_server.store.jobs.jobs import JobStore
from manyview_server.store.lock import DataLock
from manyview_server.store.records import Progress
from manyview_server.store.startup.generation import Generation
from manyview_server.store.startup.start import DATABASE, GENERATION, WRITE_AHEAD_LOG, StoreStart
from manyview_server.system.disk_space import reserve_bytes as reserve_bytes_of


class Store:
    """An open data directory."""

    def __init__(self, lock: DataLock, reserve_bytes: int, clock: Callable[[], float]) -> None:
        data_dir = lock.data_dir
        self._data_dir = data_dir
        self._lock = lock
        self._database = Database(data_dir / DATABASE, Ballast(data_dir / "BALLAST", reserve_bytes))
        self._generation = Generation(self._database, data_dir / GENERATION, data_dir / WRITE_AHEAD_LOG)
        self._writers = ShardWriters(self.datasets_dir)
        self._deletions = Deletions(self._database, data_dir)
        self.events = EventLog(self._database, clock=clock)
        self.datasets = DatasetStore(
            self._database, self.datasets_dir, self._writers, self._deletions, clock, embeddings_dir=self.embeddings_dir
        )
        ingest = Ingest(self._database, self._writers, data_dir, reserve_bytes)
        self.uploads = UploadStore(self._database, ingest, self.datasets)
        progress: dict[str, Progress] = {}
        self.checkpoints = CheckpointStore(self._database, self.events, self.jobs_dir, self._deletions, progress, clock)
        self.jobs = JobStore(
            self._database,
            self.events,
            self.jobs_dir,
            self._deletions,
            self.checkpoints,
            progress,
            clock,
            embeddings_dir=self.embeddings_dir,
        )
        self.idempotency_log = IdempotencyLog(self._database, clock)

    @property
    def num_commits(self) -> int:
        """The number of commits since the start. While it stays the same, what was read stays true."""
        return self._database.num_commits

    @classmethod
    def open(
        cls,
        data_dir: Path,
        *,
        lock: DataLock | None = None,
        reserve_bytes: int | None = None,
        limit: GroupLimit = ANY_GROUP,
        accept_mismatch: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> Store:
        """Open or create a data directory, and recover it after a crash. Of shards, only the ends are read.

        Args:
            lock: the directory's lock, if the caller holds it. `close` releases it, and so does an error of this call.
            reserve_bytes: how many bytes of the disk uploads leave free.
            limit: the most that a group of batches can hold.
            accept_mismatch: open a directory whose database does not match its data, and move aside what the database
                does not know.

        Raises:
            StoreUnusable: StoreLocked, StoreTooNew, StoreCorrupt or StoreMismatched.
        """
        data_dir = data_dir.resolve()
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if lock is not None and lock.data_dir != data_dir:
            lock.release()
            lock = None
        lock = lock or DataLock.take(data_dir)
        try:
            if reserve_bytes is None:
                reserve_bytes = reserve_bytes_of(data_dir)
            store = cls(lock, reserve_bytes, clock)
            start = StoreStart(data_dir, store._database, store._deletions, store._generation, clock())
            start.run(limit, accept_mismatch)
        except BaseException:
            lock.release()
            raise
        return store

    @property
    def datasets_dir(self) -> Path:
        """The parent of the directories of the data sets, which their uids name."""
        return self._data_dir / "datasets"

    @property
    def jobs_dir(self) -> Path:
        """The parent of the directories of the jobs, which their uids name."""
        return self._data_dir / "jobs"

    @property
    def embeddings_dir(self) -> Path:
        """The parent of the directories of tables of embeddings, which the uids of the data sets name."""
        return self._data_dir / "embeddings"

    @property
    def weights_dir(self) -> Path:
        """The directory of the operator's own weights for plain backbones."""
        return self._data_dir / "weights"

    async def close(self) -> None:
        """Make all waiting data durable, close the database, and release the directory."""
        await self.uploads.close()
        await self.events.close()
        await self._database.call(self._writers.close)
        await self._database.call(self._generation.close)
        self._database.close()
        self._lock.release()
