"""The queries of a search: images that a request sends, or stored images of the data set.

Shapes: Q queries, D features.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from manyview.v1 import dataset_service_pb2, types_pb2
from manyview.v1 import embed_service_pb2 as pb
from manyview_server.counted_noun import number_of
from manyview_server.front.embeddings.image_embedder import ImageEmbedder
from manyview_server.front.embeddings.table_requests import TableSource
from manyview_server.front.limits import Limits
from manyview_server.front.rpc import resource_names as names
from manyview_server.front.rpc.resource_names import invalid, shown
from manyview_server.front.rpc.violation_collector import ViolationCollector
from manyview_server.messages.embedding import EmbedRecipe, RowFailed
from manyview_server.store.images.snapshots import Snapshot
from manyview_server.store.records import FoundImage, ImageRef
from manyview_server.store.store import Store

Numbers = npt.NDArray[np.int64]


class QueryFields(Protocol):
    """The fields of a request that name its queries."""

    @property
    def images(self) -> Sequence[types_pb2.Image]: ...

    @property
    def stored(self) -> Sequence[dataset_service_pb2.ImageRef]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """The Q' queries that have an embedding, and the errors of those that have none."""

    num_queries: int
    rows: Numbers
    """(Q',) rows of the table, or empty if the request sends the images."""
    vectors: npt.NDArray[np.float32]
    """(Q', D), or empty if the queries are images of the data set."""
    errors: dict[int, RowFailed]
    """The errors by the number of their query, which counts from 0."""

    @property
    def blobs(self) -> tuple[bytes, bytes]:
        """The rows and vectors as bytes, for a message to the selector."""
        return self.rows.astype("<i8").tobytes(), self.vectors.astype("<f4").tobytes()

    @property
    def answered(self) -> list[int]:
        """The queries that have an embedding, in their order."""
        return [query for query in range(self.num_queries) if query not in self.errors]


def read_refs(
    refs: Sequence[dataset_service_pb2.ImageRef], field: str, violations: ViolationCollector
) -> list[ImageRef]:
    """Read references to images of the data set."""
    read = [partial(names.image_ref, ref, f"{field}[{number}]") for number, ref in enumerate(refs)]
    return [violations.read(one, ImageRef()) for one in read]


class QueryReader:
    """Reads queries, and embeds the images that a request sends."""

    def __init__(self, store: Store, embedder: ImageEmbedder, limits: Limits) -> None:
        self._store = store
        self._embedder = embedder
        self._limits = limits

    def read(self, fields: QueryFields, prefix: str, violations: ViolationCollector) -> list[ImageRef]:
        """Return the stored images that a request names, or an empty list if it sends images instead."""
        if bool(fields.images) == bool(fields.stored):
            state = "images and stored are both set" if fields.images else "neither images nor stored is set"
            violations.add(f"{prefix}images", f"{state}; set exactly one of them")
        if len(fields.images) > self._limits.max_batch_images:
            violations.add(
                f"{prefix}images",
                f"{number_of(len(fields.images), 'image')}; at most {self._limits.max_batch_images} are allowed",
            )
        return read_refs(fields.stored, f"{prefix}stored", violations)

    async def positions(self, snapshot: Snapshot, refs: Sequence[ImageRef], field: str) -> Numbers:
        """Return the positions of stored images in the data set.

        Raises:
            NotFound: IMAGE_NOT_FOUND.
            FailedPrecondition: KEY_AMBIGUOUS.
            InvalidArgument: an image is not part of the snapshot's version."""
        found = await self._store.datasets.find_images(snapshot.dataset.dataset_id, refs)
        return await asyncio.to_thread(_positions, found, snapshot.version, field)

    async def from_rows(self, source: TableSource, rows: Numbers, unreadable: Numbers) -> Queries:
        """Return the queries for images of the data set, which are given by their positions."""
        missing = await asyncio.to_thread(lambda: np.flatnonzero(np.isin(rows, unreadable)).tolist())
        uid = source.snapshot.dataset.uid
        records = await self._store.datasets.images_at(uid, [int(rows[query]) for query in missing])
        errors = {
            query: RowFailed(
                row=query, reason=record.reason or "NON_FINITE", message=record.message or "the image has no embedding"
            )
            for query, record in zip(missing, records, strict=True)
        }
        vectors = np.empty((0, source.spec.num_features), np.float32)
        return Queries(num_queries=len(rows), rows=np.delete(rows, missing), vectors=vectors, errors=errors)

    def progress(self, images: Sequence[types_pb2.Image]) -> pb.EmbeddingsProgress:
        """Return the progress while `from_images` embeds these images."""
        if self._embedder.is_starting:
            return pb.EmbeddingsProgress(stage=pb.EmbeddingsProgress.STAGE_STARTING_WORKER)
        return pb.EmbeddingsProgress(stage=pb.EmbeddingsProgress.STAGE_EMBEDDING_QUERIES, total=len(images))

    async def from_images(self, source: TableSource, images: Sequence[types_pb2.Image]) -> Queries:
        """Embed the images that a request sends with the model of the source, and return them as queries."""
        batch = await self._embedder.embed(EmbedRecipe(model=source.spec.model), images)
        vectors = np.frombuffer(batch.done.blobs[0], "<f4").reshape(batch.done.shape)
        finite = [query for query in range(len(images)) if query not in batch.errors]
        return Queries(
            num_queries=len(images),
            rows=np.empty(0, np.int64),
            vectors=vectors[finite].astype(np.float32),
            errors=batch.errors,
        )


def _positions(found: Sequence[FoundImage], version: int, field: str) -> Numbers:
    for number, image in enumerate(found):
        if image.position >= version:
            text = f"{shown(image.record.key)} is image {image.position + 1}, beyond version {version} of the data set"
            raise invalid(f"{field}[{number}]", text)
    return np.array([image.position for image in found], np.int64)
