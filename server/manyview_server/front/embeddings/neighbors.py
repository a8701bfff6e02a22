"""FindNeighbors and FindDuplicates: search the embeddings of a data set for images that are near each other."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from manyview.v1 import embed_service_pb2 as pb
from manyview_server.counted_noun import number_of
from manyview_server.errors import FailedPrecondition
from manyview_server.front.convert import dataset_messages
from manyview_server.front.embeddings.queries import Queries, QueryReader
from manyview_server.front.embeddings.table_requests import (
    TableRequests,
    TableSource,
    embedding_progress,
    read_names,
    read_unit,
)
from manyview_server.front.rpc.draining import Draining
from manyview_server.front.rpc.resource_names import invalid
from manyview_server.front.rpc.response_stream import ResponseStream
from manyview_server.front.rpc.violation_collector import ViolationCollector
from manyview_server.messages.message import Message
from manyview_server.messages.selection import DuplicatesGrouped, FindNearest, GroupDuplicates, NearestFound

DEFAULT_NEIGHBORS = 10
MAX_NEIGHBORS = 1_000
MAX_FOUND = 5_000_000
"""The most neighbors of all queries of a call. Each takes 12 bytes of the selector's answer, which must stay within
`link.MAX_ANSWER_BYTES`."""
MEMBERS_AT_ONCE = 400

NeighborsStream = ResponseStream[pb.FindNeighborsResponse]
DuplicatesStream = ResponseStream[pb.FindDuplicatesResponse]


class NeighborFinder:
    """Answers FindNeighbors and FindDuplicates."""

    def __init__(self, stored: TableRequests, queries: QueryReader, draining: Draining) -> None:
        self._stored = stored
        self._queries = queries
        self._draining = draining

    def neighbors(self, request: pb.FindNeighborsRequest) -> AsyncGenerator[pb.FindNeighborsResponse, None]:
        """Yield the responses to a request."""
        stream: NeighborsStream = ResponseStream(self._draining, lambda p: pb.FindNeighborsResponse(progress=p))
        return stream.responses(self._neighbors(request, stream))

    def duplicates(self, request: pb.FindDuplicatesRequest) -> AsyncGenerator[pb.FindDuplicatesResponse, None]:
        """Yield the responses to a request."""
        stream: DuplicatesStream = ResponseStream(self._draining, lambda p: pb.FindDuplicatesResponse(progress=p))
        return stream.responses(self._duplicates(request, stream))

    async def _neighbors(self, request: pb.FindNeighborsRequest, stream: NeighborsStream) -> None:
        violations = ViolationCollector()
        asked, unit = read_names(request, request.output, violations), read_unit(request.metric, violations)
        refs = await asyncio.to_thread(self._queries.read, request, "", violations)
        if not 0 <= request.num_neighbors <= MAX_NEIGHBORS:
            violations.add(
                "num_neighbors",
                f"{request.num_neighbors} must be from 1 to {MAX_NEIGHBORS:,}, or 0 for {DEFAULT_NEIGHBORS}",
            )
        elif len(refs) * request.num_neighbors > MAX_FOUND:
            asking = number_of(len(refs), "query", "queries")
            text = f"{request.num_neighbors} for each of {asking}; at most {MAX_FOUND:,} are allowed in all"
            violations.add("num_neighbors", text)
        violations.raise_if_any()
        source = await self._stored.source(asked)
        rows = self._stored.row_source(source, unit=unit)
        own = await self._queries.positions(source.snapshot, refs, "stored") if refs else None
        await stream.send(pb.FindNeighborsResponse(opened=source.opened))
        queries = None
        if not refs:
            embedding = self._queries.from_images(source, request.images)
            queries = await stream.wait(embedding, partial(self._queries.progress, request.images))
        async with self._stored.tables.open(source.spec, source.snapshot) as table:
            await stream.wait(table.complete(), partial(embedding_progress, table))
            unreadable = await table.unreadable()
            if own is not None:
                queries = await self._queries.from_rows(source, own, unreadable)
            assert queries is not None
            k = _num_neighbors(request, source.snapshot.version - len(unreadable))
            ask = FindNearest(
                source=replace(rows, directory=str(table.directory)), num_neighbors=k, blobs=queries.blobs
            )
            found = await self._stored.compute(ask, stream, table) if queries.answered else None
        await self._send_neighbors(source, queries, found, stream)
        await stream.send(pb.FindNeighborsResponse(end=pb.FindNeighborsEnd(num_queries=queries.num_queries)))

    async def _send_neighbors(
        self, source: TableSource, queries: Queries, found: Message | None, stream: NeighborsStream
    ) -> None:
        """Send one message for each query, in the order of the queries."""
        places = {query: place for place, query in enumerate(queries.answered)}
        rows, distances = _arrays(found, len(places))
        for query in range(queries.num_queries):
            answer = pb.QueryNeighbors(query=query)
            if query in places:
                at = places[query]
                answer.neighbors.extend(await self._near(source, rows[at].tolist(), distances[at].tolist()))
            else:
                error = queries.errors[query]
                answer.error.reason, answer.error.message = error.reason, error.message
            await stream.send(pb.FindNeighborsResponse(neighbors=answer))

    async def _duplicates(self, request: pb.FindDuplicatesRequest, stream: DuplicatesStream) -> None:
        violations = ViolationCollector()
        asked, unit = read_names(request, request.output, violations), read_unit(request.metric, violations)
        if not 0 <= request.max_distance < float("inf"):
            violations.add("max_distance", f"{request.max_distance} must be finite and at least 0")
        violations.raise_if_any()
        source = await self._stored.source(asked)
        rows = self._stored.row_source(source, unit=unit)
        await stream.send(pb.FindDuplicatesResponse(opened=source.opened))
        async with self._stored.tables.open(source.spec, source.snapshot) as table:
            await stream.wait(table.complete(), partial(embedding_progress, table))
            rows = replace(rows, directory=str(table.directory))
            ask = GroupDuplicates(source=rows, max_distance=request.max_distance)
            found = await self._stored.compute(ask, stream, table)
            assert isinstance(found, DuplicatesGrouped)
        members, distances, starts = await asyncio.to_thread(_groups, found)
        for group, (start, stop) in enumerate(itertools.pairwise([*starts, len(members)])):
            for at in range(start, stop, MEMBERS_AT_ONCE):
                part = slice(at, min(at + MEMBERS_AT_ONCE, stop))
                near = await self._near(source, members[part].tolist(), distances[part].tolist())
                await stream.send(pb.FindDuplicatesResponse(members=pb.DuplicateMembers(group=group, members=near)))
        end = pb.FindDuplicatesEnd(num_groups=len(starts), num_images=len(members))
        await stream.send(pb.FindDuplicatesResponse(end=end))

    async def _near(self, source: TableSource, rows: list[int], distances: list[float]) -> list[pb.Neighbor]:
        images = await self._stored.store.datasets.images_at(source.snapshot.dataset.uid, rows)
        return [
            pb.Neighbor(image=dataset_messages.stored_image(image), distance=distance)
            for image, distance in zip(images, distances, strict=True)
        ]


def _num_neighbors(request: pb.FindNeighborsRequest, num_readable: int) -> int:
    """Return how many neighbors to find. Raises InvalidArgument if the data set has fewer images than the request asks
    for, and FailedPrecondition if it has none."""
    most = num_readable - bool(request.stored)
    if most < 1:
        raise FailedPrecondition(
            "TOO_FEW_IMAGES", f"the data set has {number_of(num_readable, 'readable image')} to search"
        )
    if request.num_neighbors > most:
        raise invalid("num_neighbors", f"{request.num_neighbors} is more than the {number_of(most, 'image')} to search")
    return request.num_neighbors or min(DEFAULT_NEIGHBORS, most)


def _groups(found: DuplicatesGrouped) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], list[int]]:
    """Return the members of all groups, their distances, and where each group starts."""
    members, heads = (np.frombuffer(blob, "<i8") for blob in found.blobs[:2])
    starts = np.flatnonzero(np.diff(heads, prepend=-1)).tolist()
    return members, np.frombuffer(found.blobs[2], "<f4"), starts


def _arrays(found: Message | None, num_queries: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the rows and distances, each (Q', K), or empty arrays if nothing was searched."""
    if found is None:
        return np.empty((0, 0), np.int64), np.empty((0, 0), np.float32)
    assert isinstance(found, NearestFound)
    shape = (num_queries, found.num_neighbors)
    return np.frombuffer(found.blobs[0], "<i8").reshape(shape), np.frombuffer(found.blobs[1], "<f4").reshape(shape)
