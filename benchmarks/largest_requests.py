"""The largest request of every rpc that a server accepts, and a hostile one of every rpc that it must refuse.

`loop.py` measures what they do to a real server, and `tests/server/front/test_loop.py` what they do to the event loop.
Requests are bytes, so that a hostile one needs no client that could make it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from manyview.v1 import (
    dataset_service_pb2,
    embed_service_pb2,
    metrics_service_pb2,
    model_service_pb2,
    train_job_service_pb2,
    types_pb2,
)

PACKAGE = "manyview.v1"
FILES = (dataset_service_pb2, train_job_service_pb2, embed_service_pb2, metrics_service_pb2, model_service_pb2)
METHODS: dict[str, Any] = {
    f"{service.name}.{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
"""Every rpc of the contract, from its descriptors."""

MESSAGE_BYTES = 16 << 20
BATCH_IMAGES = 256
NUM_CHOSEN, NUM_QUERIES, NUM_LABELS = 100_000, 10_000, 25_000


@dataclass(frozen=True, kw_only=True)
class World:
    """The content of the server, by the names that the requests use."""

    dataset: str
    """"datasets/{id}"."""
    image_ids: Sequence[str]
    large_key: str
    """The key of an image that is `large_ppm`."""
    job: str
    """"trainJobs/{id}", terminal."""
    model: str
    method: str
    config: dict[str, Any]
    """The largest configuration that the method takes."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call: the bytes of its requests."""

    method: str
    label: str
    requests: tuple[bytes, ...]

    @property
    def num_bytes(self) -> int:
        """The bytes of all requests together."""
        return sum(map(len, self.requests))


def ppm(seed: int, num_bytes: int) -> bytes:
    """Return a picture of about `num_bytes` bytes that is different for each seed."""
    width = 64
    height = max(1, num_bytes // (3 * width))
    return b"P6 %d %d 255\n" % (width, height) + seed.to_bytes(8, "big") + bytes(3 * width * height - 8)


def large_ppm(seed: int = 0) -> bytes:
    """Return the largest picture that a server takes by default, 32 MiB. It is different for each seed."""
    side = 3_343
    return b"P6 %d %d 255\n" % (side, side) + seed.to_bytes(8, "big") + bytes(3 * side * side - 8)


def images(num_images: int, total_bytes: int, first: int = 0) -> list[types_pb2.Image]:
    """Return `num_images` pictures that take `total_bytes` together."""
    files = [ppm(first + number, total_bytes // num_images) for number in range(num_images)]
    return [
        types_pb2.Image(data=data, key=f"{number:08}.ppm", label="a label", sha256=hashlib.sha256(data).digest())
        for number, data in enumerate(files, start=first)
    ]


def cases(world: World) -> Iterator[Case]:
    """Yield the calls: first those that a server answers, then a hostile one for each rpc."""
    for method, label, *requests in [
        *_of_datasets(world),
        *_of_jobs(world),
        *_of_embeddings(world),
        *_of_others(world),
    ]:
        yield Case(method=method, label=label, requests=tuple(request.SerializeToString() for request in requests))
    # Eight million empty values of the first field, which would be as many objects if they were parsed.
    bomb = b"\x0a\x00" * (MESSAGE_BYTES // 2 - 1)
    for method in METHODS:
        yield Case(method=method, label="bomb", requests=(bomb,))


def send(channel: grpc.Channel, case: Case, timeout_s: float) -> str:
    """Make a call and read its whole answer. Returns the name of its status."""
    method = METHODS[case.method]
    shape = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
    path = f"/{PACKAGE}.{case.method.replace('.', '/')}"
    call: Any = getattr(channel, "_".join(shape))(path)
    try:
        answer = call(iter(case.requests) if method.client_streaming else case.requests[0], timeout=timeout_s)
        if method.server_streaming:
            for _ in answer:
                pass
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def _of_datasets(world: World) -> list[tuple[Any, ...]]:
    pb = dataset_service_pb2
    dataset, half = world.dataset, MESSAGE_BYTES // 2
    header = pb.UploadHeader(dataset=dataset, upload_id="u" * 63)
    batches = [types_pb2.ImageBatch(number=n, images=images(BATCH_IMAGES, half, 1000 * n)) for n in (1, 2)]
    upload = [
        pb.UploadImagesRequest(header=header),
        *(pb.UploadImagesRequest(batch=batch) for batch in batches),
        pb.UploadImagesRequest(finish=pb.UploadFinish(num_images=2 * BATCH_IMAGES)),
    ]
    large_images = [types_pb2.ImageBatch(number=n, images=[types_pb2.Image(data=large_ppm(n))]) for n in (1, 2)]
    large_upload = [
        pb.UploadImagesRequest(header=pb.UploadHeader(dataset=dataset, upload_id="l" * 63)),
        *(pb.UploadImagesRequest(batch=batch) for batch in large_images),
        pb.UploadImagesRequest(finish=pb.UploadFinish(num_images=2)),
    ]
    large = pb.ImageRef(key=world.large_key)
    return [
        ("DatasetService.CreateDataset", "", pb.CreateDatasetRequest(dataset_id="d" * 63, request_id=_uuid(1))),
        ("DatasetService.GetDataset", "", pb.GetDatasetRequest(name=dataset)),
        ("DatasetService.ListDatasets", "1,000", pb.ListDatasetsRequest(page_size=1000)),
        ("DatasetService.UploadImages", "512 images, 16 MiB", *upload),
        ("DatasetService.UploadImages", "2 images, 64 MiB", *large_upload),
        ("DatasetService.GetUpload", "", pb.GetUploadRequest(dataset=dataset, upload_id="u" * 63)),
        ("DatasetService.ListImages", "10,000", pb.ListImagesRequest(dataset=dataset, page_size=10_000)),
        ("DatasetService.GetImage", "32 MiB", pb.GetImageRequest(dataset=dataset, image=large)),
        ("DatasetService.GetImage", "a key of 4 KiB", pb.GetImageRequest(dataset=dataset, image=_key(4096))),
        ("DatasetService.DeleteDataset", "", pb.DeleteDatasetRequest(name=f"datasets/{'d' * 63}")),
    ]


def _of_jobs(world: World) -> list[tuple[Any, ...]]:
    pb = train_job_service_pb2
    config, job = json_format.ParseDict(world.config, Struct()), world.job
    wrong = json_format.ParseDict({f"list{n}": [f"wrong {n}" * 10] * 200 for n in range(5)}, Struct())
    unknown = json_format.ParseDict({"views": {"pipelines": [{f"k{n}": 1 for n in range(60)}] * 60}}, Struct())
    create: dict[str, Any] = {"dataset": world.dataset, "method": world.method, "validate_only": True}
    pictures = [pb.PreviewImage(image=image) for image in images(16, 15 << 20)]
    return [
        ("TrainJobService.CreateTrainJob", "largest", pb.CreateTrainJobRequest(config=config, **create)),
        ("TrainJobService.CreateTrainJob", "wrong", pb.CreateTrainJobRequest(config=wrong, **create)),
        ("TrainJobService.CreateTrainJob", "unknown keys", pb.CreateTrainJobRequest(config=unknown, **create)),
        ("TrainJobService.CreateTrainJob", "clone", pb.CreateTrainJobRequest(clone_from=job, validate_only=True)),
        ("TrainJobService.GetTrainJob", "", pb.GetTrainJobRequest(name=job)),
        ("TrainJobService.ListTrainJobs", "1,000", pb.ListTrainJobsRequest(page_size=1000)),
        ("TrainJobService.DeleteTrainJob", "", pb.DeleteTrainJobRequest(name="trainJobs/missing")),
        ("TrainJobService.PauseTrainJob", "", pb.PauseTrainJobRequest(name=job)),
        ("TrainJobService.ResumeTrainJob", "", pb.ResumeTrainJobRequest(name=job)),
        ("TrainJobService.CancelTrainJob", "", pb.CancelTrainJobRequest(name=job, request_id=_uuid(2))),
        ("TrainJobService.ListMethods", "", pb.ListMethodsRequest()),
        ("TrainJobService.PreviewViews", "a job", pb.PreviewViewsRequest(train_job=job, images=pictures[:1])),
        (
            "TrainJobService.PreviewViews",
            "16 images, 15 MiB",
            pb.PreviewViewsRequest(method=world.method, images=pictures),
        ),
        ("TrainJobService.TailLogs", "10,000 lines", pb.TailLogsRequest(train_job=job, num_lines=10_000)),
    ]


def _of_embeddings(world: World) -> list[tuple[Any, ...]]:
    pb = embed_service_pb2
    about: dict[str, Any] = {"dataset": world.dataset, "model": world.model}
    batch = images(BATCH_IMAGES, 15 << 20)
    stream = [types_pb2.ImageBatch(number=n, images=batch) for n in (1, 2)]
    named = [dataset_service_pb2.ImageRef(image_id=image_id) for image_id in world.image_ids]
    chosen = (named * (NUM_CHOSEN // len(named) + 1))[:NUM_CHOSEN]
    queries = (named * (NUM_QUERIES // len(named) + 1))[:NUM_QUERIES]
    counts = {f"label {number}": 1 for number in range(NUM_LABELS)}
    random = pb.SelectSamplesRequest(dataset=world.dataset, random=pb.RandomStrategy(), count=1, chosen=chosen[:-10])
    labels = pb.SelectSamplesRequest(
        dataset=world.dataset, random=pb.RandomStrategy(), balance=pb.ClassBalance(counts=counts)
    )
    similar = pb.SelectSamplesRequest(
        **about, count=1, similarity=pb.SimilarityStrategy(stored=queries[: len(named) // 2])
    )
    nearest = pb.FindNeighborsRequest(**about, stored=queries, num_neighbors=1)
    many_near = pb.FindNeighborsRequest(**about, stored=queries[:20], num_neighbors=min(1000, len(named) - 1))
    return [
        ("EmbedService.Embed", "256 images, 15 MiB", pb.EmbedRequest(model=world.model, images=batch)),
        (
            "EmbedService.EmbedStream",
            "512 images, 30 MiB",
            pb.EmbedStreamRequest(header=pb.EmbedHeader(model=world.model)),
            *(pb.EmbedStreamRequest(batch=one) for one in stream),
        ),
        ("EmbedService.EmbedDataset", "", pb.EmbedDatasetRequest(**about)),
        ("EmbedService.SelectSamples", "100,000 chosen", random),
        ("EmbedService.SelectSamples", "25,000 labels", labels),
        ("EmbedService.SelectSamples", "similar to many", similar),
        ("EmbedService.FindNeighbors", "10,000 queries", nearest),
        ("EmbedService.FindNeighbors", "1,000 neighbors", many_near),
        ("EmbedService.FindDuplicates", "all are", pb.FindDuplicatesRequest(**about, max_distance=2.0)),
    ]


def _of_others(world: World) -> list[tuple[Any, ...]]:
    metrics, models = metrics_service_pb2, model_service_pb2
    names = [f"{number:03}" + "n" * 500 for number in range(999)]
    job = world.job
    return [
        ("MetricsService.SubscribeMetrics", "all events", metrics.SubscribeMetricsRequest(train_job=job)),
        (
            "MetricsService.QueryMetrics",
            "10,000 rows",
            metrics.QueryMetricsRequest(train_job=job, page_size=10_000),
        ),
        (
            "MetricsService.QueryMetrics",
            "1,000 names, thinned",
            metrics.QueryMetricsRequest(train_job=job, metric_names=["loss", *names], max_rows=5_000, page_size=10_000),
        ),
        ("ModelService.ListModels", "1,000", models.ListModelsRequest(page_size=1000)),
        ("ModelService.GetModel", "", models.GetModelRequest(name=world.model)),
        ("ModelService.ExportModel", "", models.ExportModelRequest(name=world.model)),
        ("ModelService.GetServerInfo", "", models.GetServerInfoRequest()),
    ]


def _key(num_bytes: int) -> dataset_service_pb2.ImageRef:
    return dataset_service_pb2.ImageRef(key="k" * num_bytes)


def _uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"
