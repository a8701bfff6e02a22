"""DatasetService: create and delete data sets, and list their images. `upload_stream` has the upload stream."""
# ruff: noqa: N802 (the contract names the methods)

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from manyview.v1 import dataset_service_pb2 as pb
from manyview.v1 import dataset_service_pb2_grpc
from manyview_server.front.convert import dataset_messages
from manyview_server.front.datasets.stored_bytes import stored_bytes
from manyview_server.front.datasets.upload_stream import UploadRequest, UploadStream
from manyview_server.front.limits import Limits
from manyview_server.front.rpc import page_tokens, pages
from manyview_server.front.rpc import resource_names as names
from manyview_server.front.rpc.bidi import RequestReader, ending_in_band
from manyview_server.front.rpc.draining import Draining
from manyview_server.front.rpc.idempotency import once
from manyview_server.store.records import FoundImage
from manyview_server.store.store import Store

Context = grpc.aio.ServicerContext[Any, Any]

STATUSES = {
    pb.StoredImage.STATUS_STORED: "STORED",
    pb.StoredImage.STATUS_REJECTED: "REJECTED",
    pb.StoredImage.STATUS_UNREADABLE: "UNREADABLE",
}
COMMITTED = ("STORED", "UNREADABLE")
IMAGE_POSITION = re.compile(r"[ir][0-9]{1,18}")
"""The form of a page token: a position among the committed images, or among the refused ones."""


class DatasetService(dataset_service_pb2_grpc.DatasetServiceServicer):
    """The calls of DatasetService."""

    def __init__(self, store: Store, limits: Limits, draining: Draining) -> None:
        self._store = store
        self._limits = limits
        self._draining = draining
        self._page_bytes = pages.page_bytes(limits.max_message_bytes)

    async def CreateDataset(self, request: pb.CreateDatasetRequest, context: Context) -> pb.CreateDatasetResponse:
        """Create an empty data set."""
        dataset_id = names.new_id(request.dataset_id, "dataset_id")

        async def create() -> pb.CreateDatasetResponse:
            return pb.CreateDatasetResponse(
                dataset=dataset_messages.dataset(await self._store.datasets.create(dataset_id))
            )

        return await once(self._store.idempotency_log, request, request.request_id, create, pb.CreateDatasetResponse)

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> pb.GetDatasetResponse:
        """Return one data set."""
        record = await self._store.datasets.get(names.dataset_id(request.name))
        return pb.GetDatasetResponse(dataset=dataset_messages.dataset(record))

    async def ListDatasets(self, request: pb.ListDatasetsRequest, context: Context) -> pb.ListDatasetsResponse:
        """Return a page of the data sets."""
        size = page_tokens.page_size(request.page_size, default=100, most=1000)
        token = page_tokens.decode_page_token("datasets", request.page_token, names.RESOURCE_ID)
        read = partial(self._store.datasets.list, page_token=token)
        datasets, next_page_token = await pages.page(read, size, dataset_messages.dataset, self._page_bytes)
        return pb.ListDatasetsResponse(
            datasets=datasets, next_page_token=page_tokens.encode_page_token("datasets", next_page_token)
        )

    async def DeleteDataset(self, request: pb.DeleteDatasetRequest, context: Context) -> pb.DeleteDatasetResponse:
        """Delete a data set with its images."""
        dataset_id = names.dataset_id(request.name)

        async def delete() -> pb.DeleteDatasetResponse:
            await self._store.datasets.delete(dataset_id)
            return pb.DeleteDatasetResponse()

        return await once(self._store.idempotency_log, request, request.request_id, delete, pb.DeleteDatasetResponse)

    async def UploadImages(
        self, requests: AsyncIterator[UploadRequest], context: Context
    ) -> AsyncIterator[pb.UploadImagesResponse]:
        """Take the batches of an upload, and acknowledge each."""
        reader = RequestReader(requests)
        stream = UploadStream(self._store.uploads, self._limits, self._draining, reader)
        async for response in ending_in_band(stream.responses(), reader, lambda e: pb.UploadImagesResponse(error=e)):
            yield response

    async def GetUpload(self, request: pb.GetUploadRequest, context: Context) -> pb.GetUploadResponse:
        """Return the cursor of an upload."""
        dataset_id = names.dataset_id(request.dataset, "dataset")
        upload_id = names.upload_id(request.upload_id, "upload_id")
        return pb.GetUploadResponse(
            upload=dataset_messages.upload(await self._store.uploads.get(dataset_id, upload_id))
        )

    async def ListImages(self, request: pb.ListImagesRequest, context: Context) -> pb.ListImagesResponse:
        """Return a page of the images of a data set."""
        dataset_id = names.dataset_id(request.dataset, "dataset")
        size = page_tokens.page_size(request.page_size, default=1000, most=10_000)
        unknown = [status for status in request.statuses if status not in STATUSES]
        if unknown:
            raise names.invalid("statuses", f"{unknown[0]} is not a value of this enum")
        statuses = sorted({STATUSES[status] for status in request.statuses}) or list(COMMITTED)
        scope = f"images/{dataset_id}/{statuses}"
        token = page_tokens.decode_page_token(scope, request.page_token, IMAGE_POSITION)
        read = partial(self._store.datasets.images, dataset_id, statuses, page_token=token)
        images, next_page_token = await pages.page(read, size, dataset_messages.stored_image, self._page_bytes)
        return pb.ListImagesResponse(
            images=images, next_page_token=page_tokens.encode_page_token(scope, next_page_token)
        )

    async def GetImage(self, request: pb.GetImageRequest, context: Context) -> pb.GetImageResponse:
        """Return one image with its file."""
        dataset_id = names.dataset_id(request.dataset, "dataset")
        ref = names.image_ref(request.image, "image")
        dataset = await self._store.datasets.get(dataset_id)
        (found,) = await self._store.datasets.find_images(dataset_id, [ref])
        return await asyncio.to_thread(_image_reply, self._store.datasets.directory(dataset.uid), found)


def _image_reply(directory: Path, image: FoundImage) -> pb.GetImageResponse:
    """Make the reply. Call it off the event loop, because a message copies the file."""
    return pb.GetImageResponse(image=dataset_messages.stored_image(image.record), data=stored_bytes(directory, image))
