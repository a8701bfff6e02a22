"""EmbedDataset: the embeddings of a data set, page by page, where they are wanted reduced to fewer dimensions.

Shapes: n rows of a page, D features, d dimensions that are kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from manyview.v1 import embed_service_pb2 as pb
from manyview.v1 import types_pb2
from manyview_server import embedding_rows
from manyview_server.errors import Aborted
from manyview_server.front.convert import dataset_messages, embedding_messages
from manyview_server.front.embeddings.table_requests import (
    Source,
    SourceNames,
    StoredEmbeddings,
    computing_progress,
    embedding_progress,
    read_names,
)
from manyview_server.front.limits import Limits
from manyview_server.front.rpc import page_tokens
from manyview_server.front.rpc import resource_names as names
from manyview_server.front.rpc.draining import Draining
from manyview_server.front.rpc.response_stream import ResponseStream
from manyview_server.front.rpc.violation_collector import ViolationCollector
from manyview_server.messages.selection import FitPca, PcaFitted
from manyview_server.store.embeddings import array_file
from manyview_server.store.embeddings.tables import SEGMENT_ROWS, RowError, Segment
from manyview_server.supervise.embedders.tables import OpenTable

PAGE_BYTES = 1 << 20
"""Of rows and what is said of their images, about; at most a quarter of a message."""
IMAGE_BYTES = 2560
"""What is said of an image at most: key, label, error."""
CURSOR = re.compile(r'\["[0-9a-f]{32}","[A-Za-z0-9_./-]{1,200}",[1-9][0-9]{0,17},"[0-9a-f]{16}",(0|[1-9][0-9]{0,17})\]')
"""The form of a cursor in a page token."""

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPca:
    """What principal components are asked for: so many, or those that keep a share."""

    num_components: int = 0
    variance_fraction: float = 0.0
    whiten: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """A row x becomes matrix (x - mean)."""

    mean: Rows
    """(D,)."""
    matrix: Rows
    """(d, D)."""
    variance_kept: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Where a stream stands: what its page token holds."""

    dataset_uid: str
    checkpoint: str
    version: int
    digest: str
    first_row: int

    def encode(self, scope: str) -> str:
        """As a page token of the request with this scope."""
        fields = [self.dataset_uid, self.checkpoint, self.version, self.digest, self.first_row]
        return page_tokens.encode_page_token(scope, json.dumps(fields, separators=(",", ":")))

    @classmethod
    def decode(cls, scope: str, token: str) -> Cursor | None:
        """Return the cursor in a token, or None for an empty token.

        Raises:
            InvalidArgument: the token is of another request, or no server made it."""
        inner = page_tokens.decode_page_token(scope, token, CURSOR)
        if not inner:
            return None
        uid, checkpoint, version, digest, first_row = json.loads(inner)
        if first_row > version:
            raise names.invalid("page_token", f"continues at row {first_row}, and there are {version}")
        return cls(dataset_uid=uid, checkpoint=checkpoint, version=version, digest=digest, first_row=first_row)


class DatasetExporter:
    """Answers EmbedDataset."""

    def __init__(self, stored: StoredEmbeddings, limits: Limits, draining: Draining) -> None:
        self._stored = stored
        self._page_bytes = min(PAGE_BYTES, limits.max_message_bytes // 4)
        self._draining = draining

    def export(self, request: pb.EmbedDatasetRequest) -> AsyncGenerator[pb.EmbedDatasetResponse, None]:
        """The stream of answers."""
        stream = ResponseStream(self._draining, lambda progress: pb.EmbedDatasetResponse(progress=progress))
        return stream.responses(self._export(request, stream))

    async def _export(self, request: pb.EmbedDatasetRequest, stream: ResponseStream[pb.EmbedDatasetResponse]) -> None:
        violations = ViolationCollector()
        asked = read_names(request, request.options.output, violations, output_field="options.output")
        type_name = violations.read(lambda: embedding_messages.data_type(request.options.data_type), "")
        wanted = read_pca(request, violations)
        scope = _scope(request)
        cursor = violations.read(lambda: Cursor.decode(scope, request.page_token), None)
        violations.raise_if_any()
        source = await self._source(asked, cursor)
        if cursor is None:
            cursor = Cursor(
                dataset_uid=source.snapshot.dataset.uid,
                checkpoint=source.model.name,
                version=source.snapshot.version,
                digest=source.spec.digest,
                first_row=0,
            )
        opened = pb.EmbedDatasetOpened(
            checkpoint=cursor.checkpoint, version=cursor.version, page_token=cursor.encode(scope)
        )
        await stream.send(pb.EmbedDatasetResponse(opened=opened))
        first_row = 0 if wanted else cursor.first_row
        async with self._stored.tables.open(source.spec, source.snapshot, first_row) as table:
            projection = await self._projection(wanted, source, table, stream) if wanted else None
            finish = partial(finished, projection=projection, unit=request.options.l2_normalize, type_name=type_name)
            for start in range(cursor.first_row // SEGMENT_ROWS, -(-cursor.version // SEGMENT_ROWS)):
                segment = await stream.wait(table.segment(start), partial(embedding_progress, table))
                for page in self._pages(segment, cursor.first_row):
                    cursor = replace(cursor, first_row=page.first + len(page.rows))
                    message = await self._message(source, page, *await asyncio.to_thread(finish, page))
                    message.page_token = cursor.encode(scope)
                    await stream.send(pb.EmbedDatasetResponse(page=message))
        await stream.send(pb.EmbedDatasetResponse(end=pb.EmbedDatasetEnd(num_images=cursor.version)))

    async def _source(self, asked: SourceNames, cursor: Cursor | None) -> Source:
        """The source that is asked for, or that of the stream that is resumed."""
        if cursor is None:
            return await self._stored.source(asked)
        model = names.model_name(cursor.checkpoint, "page_token")
        dataset = await self._stored.store.datasets.get(asked.dataset_id)
        if dataset.uid != cursor.dataset_uid:
            raise Aborted(
                "DATASET_CHANGED",
                "the data set was deleted and created again in the meantime: start again without a page token",
            )
        if cursor.version > dataset.num_images:
            raise names.invalid(
                "page_token", f"covers {cursor.version} images, and the data set has {dataset.num_images}"
            )
        source = await self._stored.source(replace(asked, model=model, version=cursor.version))
        if source.spec.digest != cursor.digest:
            raise Aborted(
                "MODEL_CHANGED",
                "the server or the model's weights changed in the meantime: start again without a page token",
            )
        return source

    async def _projection(
        self, wanted: ReadPca, source: Source, table: OpenTable, stream: ResponseStream[pb.EmbedDatasetResponse]
    ) -> Projection:
        """Fitted once for each version, and kept beside the table."""
        await stream.wait(table.complete(), partial(embedding_progress, table))
        path = table.pca_path(hashlib.sha256(repr(wanted).encode()).hexdigest()[:16])
        found = await asyncio.to_thread(_read_projection, path)
        if found is None:
            await self._check_pca(wanted, source, table)
            rows = replace(self._stored.rows_of(source, unit=False), directory=str(table.directory))
            request = FitPca(
                source=rows,
                num_components=wanted.num_components,
                variance_fraction=wanted.variance_fraction,
                whiten=wanted.whiten,
            )
            answer = await stream.wait(self._stored.ask(request, table), computing_progress)
            assert isinstance(answer, PcaFitted)
            found = await asyncio.to_thread(_keep_projection, path, answer)
        fit = pb.PcaFit(num_components=len(found.matrix), variance_kept=found.variance_kept)
        await stream.send(pb.EmbedDatasetResponse(pca=fit))
        return found

    async def _check_pca(self, wanted: ReadPca, source: Source, table: OpenTable) -> None:
        readable = source.snapshot.version - len(await table.unreadable())
        most = min(source.spec.num_features, readable - 1)
        if most < 1:
            raise names.invalid("pca", f"principal components need two readable images, and there are {readable}")
        if wanted.num_components > most:
            text = (
                f"{wanted.num_components}: there are {source.spec.num_features} features of {readable} readable images"
            )
            raise names.invalid("pca.num_components", f"{text}, so at most {most}")

    def _pages(self, segment: Segment, first_row: int) -> list[Segment]:
        """The rows of a segment from `first_row` on, in parts that fit a message."""
        size = max(1, self._page_bytes // (4 * segment.rows.shape[1] + IMAGE_BYTES))
        start = max(0, first_row - segment.first)
        return [_part(segment, at, at + size) for at in range(start, len(segment.rows), size)]

    async def _message(
        self, source: Source, page: Segment, rows: types_pb2.Tensor, errors: Sequence[RowError]
    ) -> pb.EmbeddingsPage:
        places = range(page.first, page.first + len(page.rows))
        images = await self._stored.store.datasets.images_at(source.snapshot.dataset.uid, places)
        return pb.EmbeddingsPage(
            first_row=page.first,
            embeddings=rows,
            images=[dataset_messages.stored_image(image) for image in images],
            errors=[pb.RowError(row=e.row, error=dataset_messages.image_error(e.reason, e.message)) for e in errors],
        )


def read_pca(request: pb.EmbedDatasetRequest, violations: ViolationCollector) -> ReadPca | None:
    """What is asked for, or None."""
    if not request.HasField("pca"):
        return None
    pca = request.pca
    match pca.WhichOneof("target"):
        case "num_components":
            if pca.num_components < 1:
                violations.add("pca.num_components", f"{pca.num_components} is less than 1")
        case "variance_fraction":
            if not 0 < pca.variance_fraction <= 1:
                violations.add("pca.variance_fraction", f"{pca.variance_fraction} is to be above 0 and at most 1")
        case _:
            violations.add("pca", "set num_components or variance_fraction")
    return ReadPca(num_components=pca.num_components, variance_fraction=pca.variance_fraction, whiten=pca.whiten)


def finished(
    page: Segment, *, projection: Projection | None, unit: bool, type_name: str
) -> tuple[types_pb2.Tensor, list[RowError]]:
    """Return a page's rows as the request asks for them, (n, d), and an error for each row that is NaN or overflows."""
    found: npt.NDArray[np.floating[Any]] = page.rows
    if projection is not None:
        with np.errstate(invalid="ignore", over="ignore"):
            found = (found - projection.mean) @ projection.matrix.T
    encoded = embedding_rows.encode(found, unit=unit, data_type=type_name)
    known = {error.row for error in page.errors}
    more = [RowError(row=row, reason=why, message=text) for row, (why, text) in encoded.errors.items()]
    errors = sorted([*page.errors, *(error for error in more if error.row not in known)], key=lambda error: error.row)
    tensor = types_pb2.Tensor(
        data_type=embedding_messages.TENSOR_TYPES[type_name], shape=found.shape, data=encoded.data
    )
    return tensor, errors


def _part(segment: Segment, start: int, stop: int) -> Segment:
    errors = tuple(replace(error, row=error.row - start) for error in segment.errors if start <= error.row < stop)
    return Segment(first=segment.first + start, rows=segment.rows[start:stop], errors=errors)


def _scope(request: pb.EmbedDatasetRequest) -> str:
    """Of all that decides what a page holds, but for the page."""
    same: Any = pb.EmbedDatasetRequest()
    same.CopyFrom(request)
    same.page_token = ""
    return f"embed/{hashlib.sha256(same.SerializeToString(deterministic=True)).hexdigest()}"


def _read_projection(path: Any) -> Projection | None:
    try:
        block = array_file.read(path)
        kept = float(block.meta["variance_kept"])
        return Projection(mean=block.arrays["mean"], matrix=block.arrays["matrix"], variance_kept=kept)
    except (array_file.BlockDamaged, FileNotFoundError, KeyError):
        return None


def _keep_projection(path: Any, answer: PcaFitted) -> Projection:
    mean = np.frombuffer(answer.blobs[0], "<f4")
    matrix = np.frombuffer(answer.blobs[1], "<f4").reshape(-1, len(mean))
    array_file.write(path, {"variance_kept": answer.variance_kept}, {"mean": mean, "matrix": matrix})
    return Projection(mean=mean, matrix=matrix, variance_kept=answer.variance_kept)
