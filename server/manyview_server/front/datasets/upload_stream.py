"""One upload stream: a header, numbered batches, a finish. Batches are acknowledged in order, once they are durable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from manyview.v1 import dataset_service_pb2 as pb
from manyview.v1 import types_pb2
from manyview_server.counted_noun import number_of
from manyview_server.front.convert import dataset_messages
from manyview_server.front.datasets.image_check import check_upload
from manyview_server.front.datasets.received_batch import ReceivedBatch
from manyview_server.front.limits import ImageLimits, Limits
from manyview_server.front.rpc import resource_names as names
from manyview_server.front.rpc.bidi import RequestReader, RequestWindow, in_order
from manyview_server.front.rpc.draining import Draining
from manyview_server.store.images.uploads import UploadSession, UploadStore
from manyview_server.store.records import CheckedImage, ImageOutcome, RejectedImage

UploadRequest = pb.UploadImagesRequest | ReceivedBatch

MOST_CONVERTED_AT_ONCE = 256
"""The most outcomes that the event loop converts itself. They take at most 1 ms, and a thread would take longer for a
batch of photographs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedBatch:
    """A batch of an upload, after its images were checked."""

    number: int
    images: list[CheckedImage | RejectedImage] = field(repr=False)
    num_bytes: int


class UploadStream:
    """Answers one upload stream.

    It checks batches one after the other, and commits several at once, so that they share the store's syncs.
    """

    def __init__(
        self, uploads: UploadStore, limits: Limits, draining: Draining, reader: RequestReader[UploadRequest]
    ) -> None:
        self._uploads = uploads
        self._limits = limits
        self._draining = draining
        self._reader = reader
        self._finish: pb.UploadFinish | None = None

    async def responses(self) -> AsyncGenerator[pb.UploadImagesResponse, None]:
        """Yield `opened`, an ack for each batch, and `finished`.

        A half-close without a finish ends the stream and completes nothing.
        """
        self._reader.end_when(self._draining.interruption())
        session = await self._open()
        self._reader.end_when(session.interruption())
        opened = pb.UploadOpened(
            upload=dataset_messages.upload(session.upload),
            max_unacked_batches=self._limits.upload_window_batches,
            max_unacked_bytes=self._limits.upload_window_bytes,
        )
        yield pb.UploadImagesResponse(opened=opened)

        async def commit(batch: CheckedBatch) -> pb.BatchAck:
            outcomes = await session.append(batch.number, batch.images)
            if len(outcomes) <= MOST_CONVERTED_AT_ONCE:
                return _ack(batch.number, outcomes)
            return await asyncio.to_thread(_ack, batch.number, outcomes)

        window = RequestWindow(self._limits.upload_window_batches, self._limits.upload_window_bytes)
        async with aclosing(in_order(self._take, commit, window)) as acks:
            async for ack in acks:
                yield pb.UploadImagesResponse(ack=ack)
        if self._finish is not None:
            upload, dataset = await session.finish(self._finish.num_images)
            finished = pb.UploadFinished(
                upload=dataset_messages.upload(upload),
                dataset=None if dataset is None else dataset_messages.dataset(dataset),
            )
            yield pb.UploadImagesResponse(finished=finished)

    async def _open(self) -> UploadSession:
        request = await self._reader.next()
        if not isinstance(request, pb.UploadImagesRequest) or request.WhichOneof("payload") != "header":
            raise names.invalid("header", "the first message of the stream must be a header")
        header = request.header
        dataset_id = names.dataset_id(header.dataset, "header.dataset")
        upload_id = names.upload_id(header.upload_id, "header.upload_id")
        if len(header.resume_digest) not in (0, 32):
            raise names.invalid(
                "header.resume_digest", f"{number_of(len(header.resume_digest), 'byte')}; it must have 32, or be empty"
            )
        return await self._uploads.open(
            dataset_id, upload_id, header.resume_digest, create_dataset=header.create_dataset
        )

    async def _take(self) -> CheckedBatch | None:
        """Return the next batch, or None at the finish, which is kept, and at the half-close."""
        request = await self._reader.next()
        if request is None:
            return None
        if isinstance(request, ReceivedBatch):
            return await self._check(request)
        match request.WhichOneof("payload"):
            case "batch":
                return await self._check(request.batch)
            case "finish":
                self._finish = request.finish
                return None
            case "header":
                raise names.invalid("header", "is set twice; a stream has one header")
            case _:
                raise names.invalid("payload", "must be a batch or a finish")

    async def _check(self, batch: types_pb2.ImageBatch | ReceivedBatch) -> CheckedBatch:
        self._limits.check_batch(batch.number, len(batch.images))
        return await asyncio.to_thread(_checked, batch, self._limits.image)


def _checked(batch: types_pb2.ImageBatch | ReceivedBatch, limits: ImageLimits) -> CheckedBatch:
    # The library writes a message to find its size, so this is work for a thread, too.
    num_bytes = batch.num_bytes if isinstance(batch, ReceivedBatch) else batch.ByteSize()
    return CheckedBatch(number=batch.number, images=check_upload(batch.images, limits), num_bytes=num_bytes)


def _ack(number: int, outcomes: Sequence[ImageOutcome]) -> pb.BatchAck:
    return pb.BatchAck(number=number, results=map(dataset_messages.image_result, outcomes))
