"""SelectSamples: choose images of a data set by a strategy over its embeddings."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from manyview.v1 import embed_service_pb2 as pb
from manyview_server.counted_noun import number_of
from manyview_server.front.convert import dataset_messages
from manyview_server.front.embeddings.queries import QueryReader
from manyview_server.front.embeddings.selection_request import SelectionRequest, read_selection
from manyview_server.front.embeddings.table_requests import (
    TableRequests,
    TableSource,
    embedding_progress,
)
from manyview_server.front.rpc.draining import Draining
from manyview_server.front.rpc.resource_names import invalid, shown
from manyview_server.front.rpc.response_stream import ResponseStream
from manyview_server.front.rpc.violation_collector import ViolationCollector
from manyview_server.messages.embedding import RowFailed
from manyview_server.messages.message import Message
from manyview_server.messages.selection import RowSource, RowsSelected, SelectRows
from manyview_server.store.images.snapshots import Snapshot

SAMPLES_AT_ONCE = 400

Numbers = npt.NDArray[np.int64]
SelectionStream = ResponseStream[pb.SelectSamplesResponse]


class SampleSelector:
    """Answers SelectSamples."""

    def __init__(self, stored: TableRequests, queries: QueryReader, draining: Draining) -> None:
        self._stored = stored
        self._queries = queries
        self._draining = draining

    def select(self, request: pb.SelectSamplesRequest) -> AsyncGenerator[pb.SelectSamplesResponse, None]:
        """Yield the responses to a request."""
        stream: SelectionStream = ResponseStream(self._draining, lambda p: pb.SelectSamplesResponse(progress=p))
        return stream.responses(self._select(request, stream))

    async def _select(self, request: pb.SelectSamplesRequest, stream: SelectionStream) -> None:
        asked = await asyncio.to_thread(read_selection, request, self._queries)
        source = await self._stored.source(asked.names) if asked.names else None
        snapshot = source.snapshot if source else await self._stored.snapshot(asked.dataset_id, asked.version)
        chosen = np.unique(await self._queries.positions(snapshot, asked.chosen, "chosen"))
        labels = await self._stored.store.datasets.labels(snapshot.dataset.uid) if asked.balance else ()
        opened = source.opened if source else pb.EmbeddingsOpened(version=snapshot.version)
        if source is None:
            unreadable = await self._stored.store.datasets.unreadable_positions(snapshot.dataset.uid, snapshot.version)
            rows = self._stored.row_count_source(snapshot.version)
            message = await asyncio.to_thread(_message, asked, snapshot, labels, rows, chosen, unreadable)
            await stream.send(pb.SelectSamplesResponse(opened=opened))
            found = await self._stored.compute(message, stream)
        else:
            found = await self._by_embeddings(request, asked, source, labels, chosen, stream)
        assert isinstance(found, RowsSelected)
        await self._send_samples(snapshot, found, stream)

    async def _by_embeddings(
        self,
        request: pb.SelectSamplesRequest,
        asked: SelectionRequest,
        source: TableSource,
        labels: Sequence[str],
        chosen: Numbers,
        stream: SelectionStream,
    ) -> Message:
        snapshot = source.snapshot
        rows = self._stored.row_source(source, unit=asked.unit, num_neighbors=asked.strategy.num_neighbors)
        # Refuse a bad request before anything is embedded, as far as its faults do not depend on embeddings.
        none = np.empty(0, np.int64)
        await asyncio.to_thread(_message, asked, snapshot, labels, rows, chosen, none)
        queries, own = None, none
        if asked.strategy.queries:
            own = await self._queries.positions(snapshot, asked.strategy.queries, "similarity.stored")
        await stream.send(pb.SelectSamplesResponse(opened=source.opened))
        if asked.strategy.name == "similarity" and not len(own):
            images = request.similarity.images
            embedding = self._queries.from_images(source, images)
            queries = await stream.wait(embedding, partial(self._queries.progress, images))
        async with self._stored.tables.open(source.spec, snapshot) as table:
            await stream.wait(table.complete(), partial(embedding_progress, table))
            unreadable = await table.unreadable()
            if len(own):
                queries = await self._queries.from_rows(source, own, unreadable)
            if queries is not None and queries.errors:
                _refuse_queries(queries.errors, "stored" if len(own) else "images")
            message = await asyncio.to_thread(
                _message,
                asked,
                snapshot,
                labels,
                replace(rows, directory=str(table.directory)),
                np.union1d(chosen, own),
                unreadable,
                queries.blobs if queries else (b"", b""),
            )
            return await self._stored.compute(message, stream, table)

    async def _send_samples(self, snapshot: Snapshot, found: RowsSelected, stream: SelectionStream) -> None:
        rows = np.frombuffer(found.blobs[0], "<i8")
        scores = np.frombuffer(found.blobs[1], "<f4")
        for at in range(0, len(rows), SAMPLES_AT_ONCE):
            part = slice(at, at + SAMPLES_AT_ONCE)
            images = await self._stored.store.datasets.images_at(snapshot.dataset.uid, rows[part].tolist())
            samples = [
                pb.Sample(image=dataset_messages.stored_image(image), score=score if math.isfinite(score) else None)
                for image, score in zip(images, scores[part].tolist(), strict=True)
            ]
            await stream.send(pb.SelectSamplesResponse(samples=pb.SampleBatch(samples=samples)))
        await stream.send(pb.SelectSamplesResponse(end=pb.SelectSamplesEnd(num_samples=len(rows))))


def _message(
    asked: SelectionRequest,
    snapshot: Snapshot,
    labels: Sequence[str],
    rows: RowSource,
    chosen: Numbers,
    unreadable: Numbers,
    queries: tuple[bytes, bytes] = (b"", b""),
) -> SelectRows:
    """Return the request to the selector. Call it off the event loop, because it looks at all rows.

    Raises InvalidArgument if there are fewer images than the request asks for.
    """
    free = np.ones(snapshot.version, bool)
    free[chosen] = free[unreadable] = False
    classes, budgets = _classes(asked, snapshot, labels, free)
    _check_count(asked, classes, free)
    return SelectRows(
        source=rows,
        strategy=asked.strategy.name,
        count=asked.count,
        seed=asked.strategy.seed,
        distance=asked.strategy.distance,
        num_neighbors=asked.strategy.num_neighbors,
        balance=asked.balance,
        dataset_dir=str(snapshot.rows.directory) if asked.balance else "",
        blobs=(
            _blob(chosen),
            _blob(unreadable),
            *queries,
            _blob(budgets),
            *(snapshot.rows.blobs if asked.balance else ()),
        ),
    )


def _classes(
    asked: SelectionRequest, snapshot: Snapshot, labels: Sequence[str], free: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int32], Numbers]:
    """Return the class of each row and the count for each class. Each is empty or 0 if the request does not need it."""
    if not asked.balance:
        return np.empty(0, np.int32), np.empty(0, np.int64)
    classes = snapshot.rows.column("label")
    budgets = np.zeros(len(labels), np.int64)
    available = np.bincount(classes[free & (classes >= 0)], minlength=len(budgets))
    known = {label: number for number, label in enumerate(labels)}
    violations = ViolationCollector()
    for label, count in asked.budgets.items():
        field = f"balance.counts[{shown(label)}]"
        if label not in known:
            some = ", ".join(map(shown, labels[:20]))
            violations.add(field, f"no image has this label; the labels are {some}" if some else "no image has a label")
        elif count > available[known[label]]:
            such = number_of(int(available[known[label]]), "such image")
            violations.add(field, f"{count} is more than the {such} that can be selected")
        else:
            budgets[known[label]] = count
    violations.raise_if_any()
    return classes, budgets


def _check_count(asked: SelectionRequest, classes: npt.NDArray[np.int32], free: npt.NDArray[np.bool_]) -> None:
    if asked.balance == "given":
        return  # the count of each label was checked
    noun = "labelled, readable image" if asked.balance else "readable image"
    available = int((free & (classes >= 0)).sum() if asked.balance else free.sum())
    if asked.count > available:
        images = number_of(available, f"{noun} that is", f"{noun}s that are")
        raise invalid("count", f"{asked.count} is more than the {images} not chosen yet")


def _refuse_queries(errors: Mapping[int, RowFailed], field: str) -> None:
    violations = ViolationCollector()
    for query, error in sorted(errors.items()):
        text = f"has no embedding: {error.reason}: {error.message}"
        violations.add(f"similarity.{field}[{query}]", text, error.reason)
    violations.raise_if_any()


def _blob(numbers: Numbers) -> bytes:
    return numbers.astype("<i8").tobytes()
