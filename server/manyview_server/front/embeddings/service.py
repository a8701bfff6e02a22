"""EmbedService: embed one batch or a stream of batches, and work on the embeddings of a data set."""
# ruff: noqa: N802 (the contract names the methods)

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import grpc

from manyview.v1 import embed_service_pb2 as pb
from manyview.v1 import embed_service_pb2_grpc, types_pb2
from manyview_server.errors import Aborted
from manyview_server.front.convert import embedding_messages
from manyview_server.front.embeddings.dataset_export import DatasetExporter
from manyview_server.front.embeddings.image_embedder import ImageEmbedder
from manyview_server.front.embeddings.neighbors import NeighborFinder
from manyview_server.front.embeddings.selection import SampleSelector
from manyview_server.front.limits import Limits
from manyview_server.front.models.resolution import Models
from manyview_server.front.rpc import resource_names as names
from manyview_server.front.rpc.bidi import RequestReader, RequestWindow, ending_in_band, in_order
from manyview_server.front.rpc.draining import Draining
from manyview_server.messages.embedding import EmbedRecipe

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberedBatch:
    """A batch of a stream, with its number."""

    number: int
    images: Sequence[types_pb2.Image] = field(repr=False)
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """The answer to a batch, for `Embed` and for `EmbedStream`."""

    embeddings: types_pb2.Tensor
    errors: list[pb.RowError]
    timing: pb.EmbedTiming


class EmbedService(embed_service_pb2_grpc.EmbedServiceServicer):
    """The calls of EmbedService."""

    def __init__(
        self,
        models: Models,
        embedder: ImageEmbedder,
        limits: Limits,
        draining: Draining,
        exporter: DatasetExporter,
        samples: SampleSelector,
        finder: NeighborFinder,
    ) -> None:
        self._models = models
        self._embedder = embedder
        self._limits = limits
        self._draining = draining
        self._exporter = exporter
        self._samples = samples
        self._finder = finder

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        """Embed one batch. If the caller goes away, its queued work is dropped."""
        self._limits.check_count(len(request.images), "images")
        recipe = await self._recipe(request.model, request.options, "model")
        # gRPC has None for a call without a deadline, and the worker has 0.
        time_left_s = context.time_remaining() or 0.0
        done = await self._embed(recipe, request.images, time_left_s)
        return pb.EmbedResponse(
            checkpoint=recipe.model.name, embeddings=done.embeddings, errors=done.errors, timing=done.timing
        )

    async def EmbedStream(
        self, requests: AsyncIterator[pb.EmbedStreamRequest], context: Context
    ) -> AsyncIterator[pb.EmbedStreamResponse]:
        """Embed numbered batches, all with the checkpoint that the header named when the stream opened."""
        reader = RequestReader(requests)
        responses = self._stream(reader)
        async for response in ending_in_band(responses, reader, lambda e: pb.EmbedStreamResponse(error=e)):
            yield response

    async def EmbedDataset(
        self, request: pb.EmbedDatasetRequest, context: Context
    ) -> AsyncIterator[pb.EmbedDatasetResponse]:
        """Stream the embeddings of a data set, page by page."""
        async with aclosing(self._exporter.export(request)) as responses:
            async for response in responses:
                yield response

    async def SelectSamples(
        self, request: pb.SelectSamplesRequest, context: Context
    ) -> AsyncIterator[pb.SelectSamplesResponse]:
        """Select images of a data set."""
        async with aclosing(self._samples.select(request)) as responses:
            async for response in responses:
                yield response

    async def FindNeighbors(
        self, request: pb.FindNeighborsRequest, context: Context
    ) -> AsyncIterator[pb.FindNeighborsResponse]:
        """Find the nearest images of each query."""
        async with aclosing(self._finder.neighbors(request)) as responses:
            async for response in responses:
                yield response

    async def FindDuplicates(
        self, request: pb.FindDuplicatesRequest, context: Context
    ) -> AsyncIterator[pb.FindDuplicatesResponse]:
        """Find groups of near-duplicates."""
        async with aclosing(self._finder.duplicates(request)) as responses:
            async for response in responses:
                yield response

    async def _stream(
        self, reader: RequestReader[pb.EmbedStreamRequest]
    ) -> AsyncGenerator[pb.EmbedStreamResponse, None]:
        reader.end_when(self._draining.interruption())
        first = await reader.next()
        if first is None or first.WhichOneof("payload") != "header":
            raise names.invalid("header", "the first message of the stream must be a header")
        recipe = await self._recipe(first.header.model, first.header.options, "header.model")
        window = self._limits.embed_window_batches
        opened = pb.EmbedOpened(checkpoint=recipe.model.name, max_unanswered_batches=window)
        yield pb.EmbedStreamResponse(opened=opened)
        expected = 0

        async def take() -> NumberedBatch | None:
            nonlocal expected
            expected += 1
            return await self._take(reader, expected)

        async def work(batch: NumberedBatch) -> pb.EmbedResult:
            done = await self._embed(recipe, batch.images, 0.0)
            return pb.EmbedResult(
                number=batch.number, embeddings=done.embeddings, errors=done.errors, timing=done.timing
            )

        bounds = RequestWindow(window, window * self._limits.max_message_bytes)
        async with aclosing(in_order(take, work, bounds)) as results:
            async for result in results:
                yield pb.EmbedStreamResponse(result=result)

    async def _take(self, reader: RequestReader[pb.EmbedStreamRequest], expected: int) -> NumberedBatch | None:
        request = await reader.next()
        if request is None:
            return None
        if request.WhichOneof("payload") != "batch":
            raise names.invalid("payload", "must be a batch after the header")
        batch = request.batch
        self._limits.check_batch(batch.number, len(batch.images))
        if batch.number != expected:
            message = f"batch {batch.number} came, but batch {expected} was expected"
            raise Aborted("SEQUENCE_GAP", message, metadata={"expected": str(expected)})
        num_bytes = await asyncio.to_thread(request.ByteSize)
        return NumberedBatch(number=batch.number, images=batch.images, num_bytes=num_bytes)

    async def _recipe(self, model: str, options: pb.EmbedOptions, field: str) -> EmbedRecipe:
        output, data_type = embedding_messages.output(options.output), embedding_messages.data_type(options.data_type)
        if output == embedding_messages.PATCH_TOKENS and options.l2_normalize:
            raise names.invalid("options.l2_normalize", "must not be set for patch tokens, whose rows are many vectors")
        resolved = await self._models.resolve_and_pin(names.model_name(model, field))
        return EmbedRecipe(model=resolved.key(output), l2_normalize=options.l2_normalize, data_type=data_type)

    async def _embed(self, recipe: EmbedRecipe, images: Sequence[types_pb2.Image], time_left_s: float) -> Embedded:
        batch = await self._embedder.embed(recipe, images, time_left_s)
        return Embedded(
            embeddings=embedding_messages.tensor(batch.done, recipe.data_type),
            errors=[embedding_messages.row_error(error) for error in batch.errors.values()],
            timing=embedding_messages.timing(batch.done),
        )
