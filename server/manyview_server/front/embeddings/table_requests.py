"""The table of embeddings that a call is about: read its names, find it, and have it worked on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from manyview.v1 import embed_service_pb2 as pb
from manyview_server.configuration.networks.preprocessing import SUFFIX
from manyview_server.counted_noun import number_of
from manyview_server.errors import FailedPrecondition
from manyview_server.front.backends import Selector, Tables
from manyview_server.front.convert import embedding_messages
from manyview_server.front.embeddings.image_embedder import ImageEmbedder
from manyview_server.front.models.resolution import Models
from manyview_server.front.rpc import resource_names as names
from manyview_server.front.rpc.resource_names import ModelName
from manyview_server.front.rpc.response_stream import ResponseStream
from manyview_server.front.rpc.violation_collector import ViolationCollector
from manyview_server.messages.embedding import ModelKey
from manyview_server.messages.message import Message
from manyview_server.messages.selection import RowSource, TableDamaged
from manyview_server.store.embeddings.tables import SegmentDamaged
from manyview_server.store.images.snapshots import Snapshot
from manyview_server.store.store import Store
from manyview_server.supervise.embedders.segment_builder import TableSpec
from manyview_server.supervise.embedders.tables import OpenTable
from manyview_server.supervise.selectors.selector import SelectorStage

METRICS = {pb.METRIC_UNSPECIFIED: True, pb.METRIC_COSINE: True, pb.METRIC_EUCLIDEAN: False}
"""True for the metrics for which rows are scaled to length 1."""
SELECTOR_STAGES: Mapping[SelectorStage, pb.EmbeddingsProgress.Stage] = {
    "queued": pb.EmbeddingsProgress.STAGE_QUEUED,
    "starting": pb.EmbeddingsProgress.STAGE_STARTING_WORKER,
    "computing": pb.EmbeddingsProgress.STAGE_COMPUTING,
}


class TableFields(Protocol):
    """The fields of a request that name a table."""

    dataset: str
    model: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TableNames:
    """The names of the images and of the model."""

    dataset_id: str
    model: ModelName
    output: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSource:
    """The images of a table, and their embeddings."""

    snapshot: Snapshot
    spec: TableSpec

    @property
    def opened(self) -> pb.EmbeddingsOpened:
        """The first message of a call."""
        return pb.EmbeddingsOpened(checkpoint=self.spec.model.name, version=self.snapshot.version)


def read_names(
    request: TableFields, output: Any, violations: ViolationCollector, *, output_field: str = "output"
) -> TableNames:
    """Read the fields that name a table. What is wrong with them is added to `violations`."""
    return TableNames(
        dataset_id=violations.read(lambda: names.dataset_id(request.dataset, "dataset"), ""),
        model=violations.read(lambda: names.model_name(request.model, "model"), ModelName()),
        output=violations.read(lambda: embedding_messages.row_output(output, output_field), ""),
        version=read_version(request.version, violations),
    )


def read_version(version: int, violations: ViolationCollector) -> int:
    """Return a version, which is 0 for the newest one."""
    if version < 0:
        violations.add(
            "version", f"must be the number of images to use from the first one on, or 0 for all (got {version})"
        )
    return version


def read_unit(metric: pb.Metric, violations: ViolationCollector) -> bool:
    """Does the metric need rows that are scaled to length 1?"""
    if metric not in METRICS:
        violations.add("metric", f"{metric} is not a value of this enum")
    return METRICS.get(metric, True)


class TableRequests:
    """Finds tables, and has selectors work on them."""

    def __init__(
        self,
        store: Store,
        models: Models,
        embedder: ImageEmbedder,
        tables: Tables,
        selector: Selector,
        versions: Mapping[str, str],
        *,
        data_type: str = "float32",
    ) -> None:
        """`versions` are those of everything that decides what an embedding is. `data_type` is that of tables."""
        self.store = store
        self.tables = tables
        self._models = models
        self._embedder = embedder
        self._selector = selector
        self._data_type = data_type
        self._identity = tuple(f"{name} {version}" for name, version in sorted(versions.items()))

    async def snapshot(self, dataset_id: str, version: int) -> Snapshot:
        """Return the first `version` images, or all if it is 0.

        Raises:
            NotFound: DATASET_NOT_FOUND.
            InvalidArgument: the data set holds fewer images.
            FailedPrecondition: DATASET_EMPTY.
        """
        dataset = await self.store.datasets.get(dataset_id)
        if version > dataset.num_images:
            raise names.invalid("version", f"{version}: the data set holds {number_of(dataset.num_images, 'image')}")
        if not dataset.num_images:
            raise FailedPrecondition("DATASET_EMPTY", f"the data set {dataset_id!r} holds no images yet")
        return await self.store.datasets.snapshot(dataset_id, version or dataset.num_images)

    async def source(self, asked: TableNames) -> TableSource:
        """Find a table by its names. The checkpoint of its model is pinned, so it is kept from now on."""
        snapshot = await self.snapshot(asked.dataset_id, asked.version)
        model = await self._models.resolve_and_pin(asked.model)
        key = model.key(asked.output)
        num_features = model.num_features(asked.output) or await self._embedder.num_features(key)
        spec = await asyncio.to_thread(_spec, key, num_features, self._identity, self._data_type)
        return TableSource(snapshot=snapshot, spec=spec)

    def row_source(self, source: TableSource, *, unit: bool, num_neighbors: int = 0) -> RowSource:
        """Return the rows of a table in the form in which the selector gets them, without their directory, which is not
        known yet. `num_neighbors` of each will be found.

        Raises:
            ResourceExhausted: SELECTION_TOO_LARGE.
        """
        spec, num_rows = source.spec, source.snapshot.version
        return self._selector.source("", num_rows, spec.num_features, unit=unit, num_neighbors=num_neighbors)

    def row_count_source(self, num_rows: int) -> RowSource:
        """Return a number of rows without embeddings, in the form in which the selector gets them."""
        return self._selector.source("", num_rows, 0, unit=False)

    async def compute(self, request: Message, stream: ResponseStream[Any], table: OpenTable | None = None) -> Message:
        """Return the answer of a selector, and report to the caller what it does. Segments that it finds damaged are
        made again."""
        progress = pb.EmbeddingsProgress()

        def on_stage(stage: SelectorStage) -> None:
            progress.stage = SELECTOR_STAGES[stage]

        async def ask() -> Message:
            while True:
                answer = await self._selector.ask(request, on_stage)
                if not isinstance(answer, TableDamaged) or table is None:
                    return answer
                await table.repair(SegmentDamaged(answer.segment, "a selector could not read it"))

        on_stage("computing")
        return await stream.wait(ask(), lambda: progress)


def embedding_progress(table: OpenTable) -> pb.EmbeddingsProgress:
    """Return the progress while a table is made."""
    if table.is_starting:
        return pb.EmbeddingsProgress(stage=pb.EmbeddingsProgress.STAGE_STARTING_WORKER)
    stage = pb.EmbeddingsProgress.STAGE_EMBEDDING
    return pb.EmbeddingsProgress(stage=stage, done=table.num_done, total=table.num_rows)


def _spec(model: ModelKey, num_features: int, identity: tuple[str, ...], data_type: str) -> TableSpec:
    if model.weights_file:  # the operator may replace it, and the file beside it
        weights = Path(model.weights_file)
        identity = (*identity, f"weights {_version(weights)}")
        if (beside := weights.with_suffix(SUFFIX)).is_file():
            identity = (*identity, f"preprocessing {_version(beside)}")
    if "/" in model.backbone and not model.checkpoint_dir:
        identity = (*identity, "images as its authors prepare them")  # earlier releases prepared them all alike
    # data_dir/jobs/<uid>/checkpoints/<name>
    owner = Path(model.checkpoint_dir).parent.parent.name if model.checkpoint_dir else "backbone"
    return TableSpec(model=model, num_features=num_features, owner=owner, identity=identity, data_type=data_type)


def _version(path: Path) -> str:
    """Return what differs if a file was replaced."""
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns}"
