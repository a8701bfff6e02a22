"""What the calls on a data set's embeddings share: which images, which model, and who works on them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from manyview.v1 import embed_service_pb2 as pb
from manyview_server.errors import FailedPrecondition
from manyview_server.front.backends import Selector, Tables
from manyview_server.front.convert import embedding_messages
from manyview_server.front.datasets.snapshot_cache import SnapshotCache
from manyview_server.front.embeddings.image_embedder import ImageEmbedder
from manyview_server.front.models.resolution import Models
from manyview_server.front.rpc import resource_names as names
from manyview_server.front.rpc.resource_names import ModelName
from manyview_server.front.rpc.violation_collector import ViolationCollector
from manyview_server.messages.embedding import ModelKey
from manyview_server.messages.message import Message
from manyview_server.messages.selection import RowSource, TableDamaged
from manyview_server.store.embeddings.tables import SegmentDamaged
from manyview_server.store.records import Snapshot
from manyview_server.store.store import Store
from manyview_server.supervise.embedders.segment_builder import TableSpec
from manyview_server.supervise.embedders.tables import OpenTable

METRICS = {pb.METRIC_UNSPECIFIED: True, pb.METRIC_COSINE: True, pb.METRIC_EUCLIDEAN: False}
"""Whether rows are scaled to length 1."""


class SourceRequest(Protocol):
    """The fields in which requests say what they are about."""

    dataset: str
    model: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceNames:
    """Those fields, read."""

    dataset_id: str
    model: ModelName
    output: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Images, and the model whose embeddings of them are asked for."""

    snapshot: Snapshot
    spec: TableSpec

    @property
    def opened(self) -> pb.EmbeddingsOpened:
        """The first message of a call."""
        return pb.EmbeddingsOpened(checkpoint=self.spec.model.name, version=self.snapshot.version)


def read_names(
    request: SourceRequest, output: Any, violations: ViolationCollector, *, output_field: str = "output"
) -> SourceNames:
    """The data set's, the model's and the version's fields; what is wrong with them goes to `violations`."""
    return SourceNames(
        dataset_id=violations.read(lambda: names.dataset_id(request.dataset, "dataset"), ""),
        model=violations.read(lambda: names.model_name(request.model, "model"), ModelName()),
        output=violations.read(lambda: embedding_messages.output(output, output_field), ""),
        version=read_version(request.version, violations),
    )


def read_version(version: int, violations: ViolationCollector) -> int:
    """A version, or 0 for the newest."""
    if version < 0:
        violations.add("version", f"{version}: the first so many images, or 0 for all that the data set holds now")
    return version


def read_unit(metric: pb.Metric, violations: ViolationCollector) -> bool:
    """Whether rows are scaled to length 1."""
    if metric not in METRICS:
        violations.add("metric", f"{metric} is not a value of this enum")
    return METRICS.get(metric, True)


class StoredEmbeddings:
    """Looks sources up, and has their tables worked on."""

    def __init__(
        self,
        store: Store,
        models: Models,
        embedder: ImageEmbedder,
        tables: Tables,
        selector: Selector,
        versions: Mapping[str, str],
    ) -> None:
        """`versions`: of everything that decides what an embedding is."""
        self.store = store
        self.tables = tables
        self._snapshots = SnapshotCache(store.datasets)
        self._models = models
        self._embedder = embedder
        self._selector = selector
        self._identity = tuple(f"{name} {version}" for name, version in sorted(versions.items()))

    async def snapshot(self, dataset_id: str, version: int) -> Snapshot:
        """The first `version` images, or all. Raises NotFound, InvalidArgument and FailedPrecondition DATASET_EMPTY."""
        dataset = await self.store.datasets.get(dataset_id)
        if version > dataset.num_images:
            raise names.invalid("version", f"{version}: the data set holds {dataset.num_images} images")
        if not dataset.num_images:
            raise FailedPrecondition("DATASET_EMPTY", f"the data set {dataset_id!r} holds no images yet")
        return await self._snapshots.get(dataset, version or dataset.num_images)

    async def source(self, asked: SourceNames) -> Source:
        """Everything that a call is about; the checkpoint that it names is kept from now on."""
        snapshot = await self.snapshot(asked.dataset_id, asked.version)
        model = await self._models.resolve_kept(asked.model)
        key = model.key(asked.output)
        num_features = model.num_features(asked.output) or await self._embedder.num_features(key)
        spec = await asyncio.to_thread(_spec, key, num_features, self._identity)
        return Source(snapshot=snapshot, spec=spec)

    def rows_of(self, source: Source, *, unit: bool, num_neighbors: int = 0) -> RowSource:
        """The source's rows as the selector is told of them, which finds so many neighbors of each; the table's
        directory is not known yet.

        Raises ResourceExhausted where they are too many for it.
        """
        spec, num_rows = source.spec, source.snapshot.version
        return self._selector.source("", num_rows, spec.num_features, unit=unit, num_neighbors=num_neighbors)

    def numbers_of(self, num_rows: int) -> RowSource:
        """No rows, but their number."""
        return self._selector.source("", num_rows, 0, unit=False)

    async def ask(self, request: Message, table: OpenTable | None = None) -> Message:
        """The selector's answer; segments that it finds damaged are made again."""
        while True:
            answer = await self._selector.ask(request)
            if not isinstance(answer, TableDamaged) or table is None:
                return answer
            await table.repair(SegmentDamaged(answer.segment, "a selector could not read it"))


def embedding_progress(table: OpenTable) -> pb.EmbeddingsProgress:
    """How much of a table there is."""
    stage = pb.EmbeddingsProgress.STAGE_EMBEDDING
    return pb.EmbeddingsProgress(stage=stage, done=table.num_done, total=table.num_rows)


def computing_progress() -> pb.EmbeddingsProgress:
    """The table is there, and is worked on."""
    return pb.EmbeddingsProgress(stage=pb.EmbeddingsProgress.STAGE_COMPUTING)


def _spec(model: ModelKey, num_features: int, identity: tuple[str, ...]) -> TableSpec:
    if model.weights_file:  # the operator may replace it
        found = Path(model.weights_file).stat()
        identity = (*identity, f"weights {found.st_size} {found.st_mtime_ns}")
    # data_dir/jobs/<uid>/checkpoints/<name>
    owner = Path(model.checkpoint_dir).parent.parent.name if model.checkpoint_dir else "backbone"
    return TableSpec(model=model, num_features=num_features, owner=owner, identity=identity)
