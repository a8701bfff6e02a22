"""EmbedDataset: stream the embeddings of a data set page by page, reduced to fewer dimensions on request.

Shapes: n rows of a page, D features, d dimensions after the reduction.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from functools import partial

from manyview.v1 import embed_service_pb2 as pb
from manyview.v1 import types_pb2
from manyview_server import embedding_rows
from manyview_server.counted_noun import number_of
from manyview_server.errors import Aborted
from manyview_server.front.convert import dataset_messages, embedding_messages
from manyview_server.front.embeddings import pca_projection
from manyview_server.front.embeddings.export_cursor import ExportCursor, request_scope
from manyview_server.front.embeddings.pca_projection import PcaProjection, PcaRequest, read_pca
from manyview_server.front.embeddings.table_requests import (
    TableNames,
    TableRequests,
    TableSource,
    embedding_progress,
    read_names,
)
from manyview_server.front.limits import Limits
from manyview_server.front.rpc import resource_names as names
from manyview_server.front.rpc.draining import Draining
from manyview_server.front.rpc.response_stream import ResponseStream
from manyview_server.front.rpc.violation_collector import ViolationCollector
from manyview_server.store.embeddings.tables import SEGMENT_ROWS, RowError, Segment
from manyview_server.supervise.embedders.tables import OpenTable

ExportStream = ResponseStream[pb.EmbedDatasetResponse]

PAGE_BYTES = 1 << 20
"""The approximate bytes of a page. A page also has at most a quarter of the largest message."""
IMAGE_BYTES = 2560
"""The most bytes that describe one image: its key, label and error."""


class DatasetExporter:
    """Answers EmbedDataset."""

    def __init__(self, stored: TableRequests, limits: Limits, draining: Draining) -> None:
        self._stored = stored
        self._page_bytes = min(PAGE_BYTES, limits.max_message_bytes // 4)
        self._draining = draining

    def export(self, request: pb.EmbedDatasetRequest) -> AsyncGenerator[pb.EmbedDatasetResponse, None]:
        """Yield the responses to a request."""
        stream: ExportStream = ResponseStream(self._draining, lambda p: pb.EmbedDatasetResponse(progress=p))
        return stream.responses(self._export(request, stream))

    async def _export(self, request: pb.EmbedDatasetRequest, stream: ExportStream) -> None:
        scope = request_scope(request)
        violations = ViolationCollector()
        asked = read_names(request, request.options.output, violations, output_field="options.output")
        type_name = violations.read(lambda: embedding_messages.data_type(request.options.data_type), "")
        pca = read_pca(request, violations)
        resumed = violations.read(lambda: ExportCursor.decode(scope, request.page_token), None)
        violations.raise_if_any()
        source = await self._source(asked, resumed)
        cursor = resumed or _first_cursor(source)
        opened = pb.EmbedDatasetOpened(
            checkpoint=cursor.checkpoint, version=cursor.version, page_token=cursor.encode(scope)
        )
        await stream.send(pb.EmbedDatasetResponse(opened=opened))
        async with self._stored.tables.open(source.spec, source.snapshot, 0 if pca else cursor.first_row) as table:
            projection = await self._projection(pca, source, table, stream) if pca else None
            encode = partial(encoded, projection=projection, unit=request.options.l2_normalize, type_name=type_name)
            for number in range(cursor.first_row // SEGMENT_ROWS, -(-cursor.version // SEGMENT_ROWS)):
                segment = await stream.wait(table.segment(number), partial(embedding_progress, table))
                for page in self._pages(segment, cursor.first_row):
                    cursor = replace(cursor, first_row=page.first + len(page.rows))
                    message = await self._message(source, page, *await asyncio.to_thread(encode, page))
                    message.page_token = cursor.encode(scope)
                    await stream.send(pb.EmbedDatasetResponse(page=message))
        await stream.send(pb.EmbedDatasetResponse(end=pb.EmbedDatasetEnd(num_images=cursor.version)))

    async def _source(self, asked: TableNames, cursor: ExportCursor | None) -> TableSource:
        """Return the source that the request names, or the source of the stream that is resumed."""
        if cursor is None:
            return await self._stored.source(asked)
        model = names.model_name(cursor.checkpoint, "page_token")
        dataset = await self._stored.store.datasets.get(asked.dataset_id)
        if dataset.uid != cursor.dataset_uid:
            raise Aborted(
                "DATASET_CHANGED",
                "the data set was deleted and created again since the first page; start again without a page token",
            )
        if cursor.version > dataset.num_images:
            raise names.invalid(
                "page_token", f"covers {number_of(cursor.version, 'image')}, but the data set has {dataset.num_images}"
            )
        source = await self._stored.source(replace(asked, model=model, version=cursor.version))
        if source.spec.digest != cursor.digest:
            raise Aborted(
                "MODEL_CHANGED",
                "the server or the model's weights changed since the first page; start again without a page token",
            )
        return source

    async def _projection(
        self, pca: PcaRequest, source: TableSource, table: OpenTable, stream: ExportStream
    ) -> PcaProjection:
        projection = await pca_projection.fit(pca, self._stored, source, table, stream)
        fit = pb.PcaFit(num_components=len(projection.matrix), variance_kept=projection.variance_kept)
        await stream.send(pb.EmbedDatasetResponse(pca=fit))
        return projection

    def _pages(self, segment: Segment, first_row: int) -> list[Segment]:
        """Split the rows of a segment from `first_row` on into parts that fit into a message."""
        size = max(1, self._page_bytes // (4 * segment.rows.shape[1] + IMAGE_BYTES))
        start = max(0, first_row - segment.first)
        return [_part(segment, at, at + size) for at in range(start, len(segment.rows), size)]

    async def _message(
        self, source: TableSource, page: Segment, rows: types_pb2.Tensor, errors: Sequence[RowError]
    ) -> pb.EmbeddingsPage:
        places = range(page.first, page.first + len(page.rows))
        images = await self._stored.store.datasets.images_at(source.snapshot.dataset.uid, places)
        return pb.EmbeddingsPage(
            first_row=page.first,
            embeddings=rows,
            images=[dataset_messages.stored_image(image) for image in images],
            errors=[pb.RowError(row=e.row, error=dataset_messages.image_error(e.reason, e.message)) for e in errors],
        )


def _first_cursor(source: TableSource) -> ExportCursor:
    return ExportCursor(
        dataset_uid=source.snapshot.dataset.uid,
        checkpoint=source.spec.model.name,
        version=source.snapshot.version,
        digest=source.spec.digest,
        first_row=0,
    )


def encoded(
    page: Segment, *, projection: PcaProjection | None, unit: bool, type_name: str
) -> tuple[types_pb2.Tensor, list[RowError]]:
    """Return the rows of a page as the request asks for them, (n, d), and an error for each row that is NaN or
    overflows."""
    rows = projection.apply(page.rows) if projection else page.rows
    result = embedding_rows.encode(rows, unit=unit, data_type=type_name)
    known = {error.row for error in page.errors}
    more = [RowError(row=row, reason=why, message=text) for row, (why, text) in result.errors.items()]
    errors = sorted([*page.errors, *(error for error in more if error.row not in known)], key=lambda error: error.row)
    tensor = types_pb2.Tensor(data_type=embedding_messages.TENSOR_TYPES[type_name], shape=rows.shape, data=result.data)
    return tensor, errors


def _part(segment: Segment, start: int, stop: int) -> Segment:
    errors = tuple(replace(error, row=error.row - start) for error in segment.errors if start <= error.row < stop)
    return Segment(first=segment.first + start, rows=segment.rows[start:stop], errors=errors)
