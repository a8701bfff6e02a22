"""PreviewViews: collect the images and the configuration of a preview, and make the reply."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manyview.v1 import train_job_service_pb2 as pb
from manyview.v1 import types_pb2
from manyview_server.counted_noun import number_of
from manyview_server.front.backends import Previewer
from manyview_server.front.convert import dataset_messages
from manyview_server.front.datasets.image_check import check_embed
from manyview_server.front.datasets.stored_bytes import stored_bytes
from manyview_server.front.jobs.job_plans import resolve
from manyview_server.front.limits import Limits
from manyview_server.front.rpc import resource_names as names
from manyview_server.link.decode_notes import TOO_SLOW
from manyview_server.messages.preview import PreviewDone, PreviewedImage, PreviewImages
from manyview_server.store.records import FoundImage
from manyview_server.store.store import Store
from manyview_server.supervise.catalogue.catalogue import Catalogue

MAX_IMAGES = 16
MAX_VIEWS = 256
MAX_EPOCH = 10**9
PIXELS_FRACTION = 0.9
"""The share of a message that the pixels of a preview may fill. The rest is for the parameters of each view, and for
pictures that PNG makes larger."""
MAX_PREVIEW_BYTES = 16 << 20
"""The largest reply, even if messages may be larger: while the event loop copies it, the server answers nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewInput:
    """The file of one image to preview, or the reason why the image cannot be decoded."""

    data: bytes = b""
    error: types_pb2.ImageError | None = None
    dataset_uid: str = ""
    """The data set that stores the image. Empty for an image that the request sends."""
    image_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImages:
    """Images of a data set, and the directory with their files."""

    uid: str
    directory: Path
    images: list[FoundImage]


class Previews:
    """Answers PreviewViews."""

    def __init__(self, store: Store, catalogue: Catalogue, previewer: Previewer, limits: Limits) -> None:
        self._store = store
        self._catalogue = catalogue
        self._previewer = previewer
        self._limits = limits

    async def views(self, request: pb.PreviewViewsRequest, time_left_s: float) -> pb.PreviewViewsResponse:
        """Return the reply within `time_left_s`. 0 means no limit.

        Raises:
            ServiceError: InvalidArgument with the field, NotFound, or an error of the previewer.
        """
        if not 0 <= request.epoch <= MAX_EPOCH:
            raise names.invalid("epoch", f"{request.epoch} is outside of 0 to {MAX_EPOCH:,}")
        settings, dataset_id = await self._configuration(request)
        _check_count(len(request.images), settings)
        stored = await self._stored(request, dataset_id)
        inputs: list[PreviewInput] = []

        async def read_images() -> PreviewImages:
            inputs.extend(await self._inputs(request, stored))
            return PreviewImages(
                settings=settings,
                epoch=request.epoch,
                max_pixel_bytes=int(PIXELS_FRACTION * min(MAX_PREVIEW_BYTES, self._limits.max_message_bytes)),
                blobs=tuple(image.data for image in inputs),
            )

        done = await self._previewer.preview(read_images, time_left_s)
        await self._mark_slow_images(inputs, done)
        return await asyncio.to_thread(_response, inputs, done)

    async def _mark_slow_images(self, inputs: list[PreviewInput], done: PreviewDone) -> None:
        """Mark stored images that took too long to decode as unreadable, so that no job decodes them."""
        for image, made in zip(inputs, done.images, strict=True):
            if image.dataset_uid and made.reason == TOO_SLOW:
                await self._store.datasets.mark_unreadable(image.dataset_uid, image.image_id, made.reason, made.message)

    async def _configuration(self, request: pb.PreviewViewsRequest) -> tuple[dict[str, Any], str]:
        """Return the whole configuration and, with `train_job`, the data set of the job."""
        if not request.train_job:
            return await asyncio.to_thread(resolve, self._catalogue, request.method, request.config), ""
        if request.method:
            raise names.invalid("method", "has no effect with train_job, because the job has a method")
        if request.HasField("config"):
            raise names.invalid("config", "has no effect with train_job, because the job has a configuration")
        job = await self._store.jobs.get(names.train_job_id(request.train_job, "train_job"))
        return job.settings, job.dataset_id

    async def _stored(self, request: pb.PreviewViewsRequest, dataset_id: str) -> StoredImages | None:
        """Return the stored images that the request names, or None if it names none. Their files are not read yet."""
        kinds = [image.WhichOneof("source") for image in request.images]
        if None in kinds:
            raise names.invalid(f"images[{kinds.index(None)}]", "is empty; set image or stored")
        if request.dataset:
            if "stored" not in kinds:
                raise names.invalid("dataset", "has no effect, because the request names no stored image")
            dataset_id = names.dataset_id(request.dataset, "dataset")
        if "stored" in kinds and not dataset_id:
            raise names.invalid("dataset", "is required for stored images, unless train_job is set")
        refs = [
            names.image_ref(image.stored, f"images[{index}].stored")
            for index, image in enumerate(request.images)
            if kinds[index] == "stored"
        ]
        if not refs:
            return None
        dataset = await self._store.datasets.get(dataset_id)
        images = await self._store.datasets.find_images(dataset_id, refs)
        return StoredImages(uid=dataset.uid, directory=self._store.datasets.directory(dataset.uid), images=images)

    async def _inputs(self, request: pb.PreviewViewsRequest, stored: StoredImages | None) -> list[PreviewInput]:
        """Read the files of all images, in the order of the request."""
        read = iter([await _file(stored, image) for image in stored.images] if stored else [])
        sent = [image.image for image in request.images if image.HasField("image")]
        checked = iter(await asyncio.to_thread(self._checked, sent))
        return [next(read) if image.HasField("stored") else next(checked) for image in request.images]

    def _checked(self, images: list[types_pb2.Image]) -> list[PreviewInput]:
        """Check images as for an embedding. Call it off the event loop, because it hashes them."""
        found = []
        for image in images:
            refused = check_embed(image, self._limits.image)
            error = dataset_messages.image_error(refused.reason, refused.message) if refused else None
            found.append(PreviewInput(data=b"" if refused else image.data, error=error))
        return found


async def _file(stored: StoredImages, image: FoundImage) -> PreviewInput:
    if image.record.status == "UNREADABLE":  # it may have killed a decoder
        return PreviewInput(error=dataset_messages.image_error(image.record.reason, image.record.message))
    data = await asyncio.to_thread(stored_bytes, stored.directory, image)
    return PreviewInput(data=data, dataset_uid=stored.uid, image_id=image.record.image_id)


def _check_count(num_images: int, settings: dict[str, Any]) -> None:
    if not 1 <= num_images <= MAX_IMAGES:
        raise names.invalid("images", f"{number_of(num_images, 'image')}; a preview has 1 to {MAX_IMAGES}")
    num_views = sum(int(pipeline["count"]) for pipeline in settings["views"]["pipelines"])
    if num_images * num_views > MAX_VIEWS:
        what = f"{number_of(num_images, 'image')} with {number_of(num_views, 'view')} each"
        raise names.invalid(
            "images", f"{what} are {number_of(num_images * num_views, 'view')}; a preview has at most {MAX_VIEWS}"
        )


def _response(inputs: list[PreviewInput], done: PreviewDone) -> pb.PreviewViewsResponse:
    pngs = iter(done.blobs)
    images = [_image(image.error, made, pngs) for image, made in zip(inputs, done.images, strict=True)]
    return pb.PreviewViewsResponse(images=images, decode_size=done.decode_size)


def _image(refused: types_pb2.ImageError | None, made: PreviewedImage, pngs: Iterator[bytes]) -> pb.PreviewedImage:
    error = refused or dataset_messages.image_error(made.reason, made.message)
    if error:
        return pb.PreviewedImage(error=error)
    return pb.PreviewedImage(
        image_id=dataset_messages.image_id(made.image_id),
        width=made.width,
        height=made.height,
        original=next(pngs),
        views=[
            pb.PreviewedView(
                pipeline=view.pipeline,
                size=view.size,
                png=next(pngs),
                parameters_json=json.dumps(view.parameters),
            )
            for view in made.views
        ],
    )
