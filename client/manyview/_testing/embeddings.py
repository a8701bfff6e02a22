"""The embeddings of `manyview.testing.FakeServer`, a fixed function of an image's bytes, and searches among them."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from manyview._progress.words import number_of
from manyview._testing.errors import Refused
from manyview.v1 import dataset_service_pb2 as datasets
from manyview.v1 import embed_service_pb2 as embeds
from manyview.v1 import model_service_pb2 as models
from manyview.v1 import types_pb2

FEATURE_DIM = 4
PAGE_ROWS = 2
"""The rows of a page. They are few, so that small tests have several pages."""


class FakeEmbeddings(ABC):
    """The replies of EmbedService. Distances are Euclidean, whatever the metric is. Every strategy selects the first
    images that were not chosen, and their scores are their numbers."""

    images: dict[str, list[datasets.StoredImage]]
    files: dict[tuple[str, str], bytes]

    @abstractmethod
    def find_model(self, name: str) -> models.Model: ...

    @abstractmethod
    def find_image(self, dataset: str, ref: datasets.ImageRef) -> datasets.StoredImage: ...

    def embed(self, request: Any, _: Any) -> embeds.EmbedResponse:
        tensor, errors = embedded([image.data for image in request.images], request.options)
        return embeds.EmbedResponse(checkpoint=self.find_model(request.model).name, embeddings=tensor, errors=errors)

    def embed_stream(self, requests: Iterator[Any], _: Any) -> Iterator[embeds.EmbedStreamResponse]:
        header = next(requests).header
        opened = embeds.EmbedOpened(checkpoint=self.find_model(header.model).name, max_unanswered_batches=2)
        yield embeds.EmbedStreamResponse(opened=opened)
        for request in requests:
            tensor, errors = embedded([image.data for image in request.batch.images], header.options)
            result = embeds.EmbedResult(number=request.batch.number, embeddings=tensor, errors=errors)
            yield embeds.EmbedStreamResponse(result=result)

    def embed_dataset(self, request: Any, _: Any) -> Iterator[embeds.EmbedDatasetResponse]:
        """A page token is "checkpoint version row". Principal components are the first features."""
        stored = self._stored(request)
        checkpoint, version, first = self.find_model(request.model).name, len(stored), 0
        if request.page_token:
            checkpoint, *numbers = request.page_token.split(" ")
            version, first = map(int, numbers)
            stored = self._stored(request, version)
        token = f"{checkpoint} {version} {first}"
        opened = embeds.EmbedDatasetOpened(checkpoint=checkpoint, version=version, page_token=token)
        yield embeds.EmbedDatasetResponse(opened=opened)
        width = FEATURE_DIM
        if request.HasField("pca"):
            width = request.pca.num_components or math.ceil(request.pca.variance_fraction * FEATURE_DIM)
            fit = embeds.PcaFit(num_components=width, variance_kept=width / FEATURE_DIM)
            yield embeds.EmbedDatasetResponse(pca=fit)
        for start in range(first, version, PAGE_ROWS):
            images = stored[start : start + PAGE_ROWS]
            tensor, errors = embedded([self._file(request, image) for image in images], request.options, width)
            token = f"{checkpoint} {version} {start + len(images)}"
            page = embeds.EmbeddingsPage(
                first_row=start, embeddings=tensor, images=images, errors=errors, page_token=token
            )
            yield embeds.EmbedDatasetResponse(page=page)
        yield embeds.EmbedDatasetResponse(end=embeds.EmbedDatasetEnd(num_images=version))

    def select_samples(self, request: Any, _: Any) -> Iterator[embeds.SelectSamplesResponse]:
        stored = self._stored(request)
        yield embeds.SelectSamplesResponse(opened=self._opened(request, len(stored)))
        chosen = [self.find_image(request.dataset, ref).image_id for ref in request.chosen]
        free = [image for image in stored if image.image_id not in chosen]
        count = request.count or sum(request.balance.counts.values()) or len(free)
        if count > len(free):
            raise Refused(
                "INVALID_ARGUMENT", "FIELD_INVALID", f"count: {count}: there are {number_of(len(free), 'image')}"
            )
        for number, image in enumerate(free[:count]):
            sample = embeds.Sample(image=image, score=number if number else None)
            yield embeds.SelectSamplesResponse(samples=embeds.SampleBatch(samples=[sample]))
        yield embeds.SelectSamplesResponse(end=embeds.SelectSamplesEnd(num_samples=count))

    def find_neighbors(self, request: Any, _: Any) -> Iterator[embeds.FindNeighborsResponse]:
        stored = self._stored(request)
        yield embeds.FindNeighborsResponse(opened=self._opened(request, len(stored)))
        named = [self.find_image(request.dataset, ref) for ref in request.stored]
        own = [image.image_id for image in named] or [""] * len(request.images)
        files = [self._file(request, image) for image in named] or [image.data for image in request.images]
        for query, (image_id, data) in enumerate(zip(own, files, strict=True)):
            answer = embeds.QueryNeighbors(query=query)
            if data:
                others = [image for image in stored if image.image_id != image_id]
                answer.neighbors.extend(self._nearest(request, data, others)[: request.num_neighbors or 10])
            else:
                answer.error.reason, answer.error.message = "IMAGE_EMPTY", "no bytes"
            yield embeds.FindNeighborsResponse(neighbors=answer)
        yield embeds.FindNeighborsResponse(end=embeds.FindNeighborsEnd(num_queries=len(files)))

    def find_duplicates(self, request: Any, _: Any) -> Iterator[embeds.FindDuplicatesResponse]:
        """Groups are the first image that is left and the images near to it, without chains."""
        left = self._stored(request)
        yield embeds.FindDuplicatesResponse(opened=self._opened(request, len(left)))
        num_groups = num_images = 0
        while left:
            near = self._nearest(request, self._file(request, left[0]), left)
            near = [one for one in near if one.distance <= request.max_distance]
            left = [image for image in left if image.image_id not in {one.image.image_id for one in near}]
            if len(near) > 1:
                for member in near:
                    members = embeds.DuplicateMembers(group=num_groups, members=[member])
                    yield embeds.FindDuplicatesResponse(members=members)
                num_groups, num_images = num_groups + 1, num_images + len(near)
        end = embeds.FindDuplicatesEnd(num_groups=num_groups, num_images=num_images)
        yield embeds.FindDuplicatesResponse(end=end)

    def _opened(self, request: Any, version: int) -> embeds.EmbeddingsOpened:
        checkpoint = self.find_model(request.model).name if request.model else ""
        return embeds.EmbeddingsOpened(checkpoint=checkpoint, version=version)

    def _stored(self, request: Any, version: int = 0) -> list[datasets.StoredImage]:
        if request.dataset not in self.images:
            raise Refused("NOT_FOUND", "DATASET_NOT_FOUND", f"no data set {request.dataset}")
        committed = [image for image in self.images[request.dataset] if image.image_id]
        return committed[: version or request.version or len(committed)]

    def _file(self, request: Any, image: datasets.StoredImage) -> bytes:
        return self.files[request.dataset, image.image_id]

    def _nearest(self, request: Any, data: bytes, others: Sequence[datasets.StoredImage]) -> list[embeds.Neighbor]:
        query = features(data)
        found = [
            embeds.Neighbor(image=image, distance=math.dist(query, features(self._file(request, image))))
            for image in others
        ]
        return sorted(found, key=lambda one: one.distance)


def features(data: bytes) -> list[float]:
    """Return the first bytes of an image's SHA-256, scaled to [0, 1]."""
    return [byte / 255 for byte in hashlib.sha256(data).digest()[:FEATURE_DIM]]


def embedded(
    files: Sequence[bytes], options: embeds.EmbedOptions, width: int = FEATURE_DIM
) -> tuple[types_pb2.Tensor, list[embeds.RowError]]:
    """Return the features of the images as rows. The row of an empty image is NaN, and it has an error."""
    import numpy as np

    rows = np.array([features(data)[:width] for data in files], dtype="<f4")
    empty = [row for row, data in enumerate(files) if not data]
    rows[empty] = np.nan
    if options.l2_normalize:
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    half = options.data_type == types_pb2.Tensor.DATA_TYPE_FLOAT16
    data = rows.astype("<f2" if half else "<f4").tobytes()
    refused = types_pb2.ImageError(reason="IMAGE_EMPTY", message="no bytes")
    kind = types_pb2.Tensor.DATA_TYPE_FLOAT16 if half else types_pb2.Tensor.DATA_TYPE_FLOAT32
    shape = rows.shape
    if options.output == embeds.EmbedOptions.OUTPUT_PATCH_TOKENS:  # two tokens of half of the features
        shape = (len(files), 2, width // 2)
    tensor = types_pb2.Tensor(data_type=kind, shape=shape, data=data)
    return tensor, [embeds.RowError(row=row, error=refused) for row in empty]
