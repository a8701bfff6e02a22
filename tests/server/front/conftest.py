"""A front in this process: the real store and a real port, with workers that only pretend."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from PIL import Image

from manyview.v1 import (
    dataset_service_pb2_grpc,
    embed_service_pb2_grpc,
    metrics_service_pb2_grpc,
    model_service_pb2_grpc,
    train_job_service_pb2_grpc,
    types_pb2,
)
from manyview_server.config import ServeSettings
from manyview_server.configuration.networks.preprocessing import Preprocessing
from manyview_server.errors import ResourceExhausted, ServiceError
from manyview_server.front.server import Backend, Server
from manyview_server.messages.embedding import EmbedDone, EmbedRecipe, RowFailed
from manyview_server.messages.message import Message
from manyview_server.messages.preview import PreviewDone, PreviewedImage, PreviewedView, PreviewImages
from manyview_server.messages.selection import RowSource, SelectionFailed
from manyview_server.store.embeddings.cache import EmbeddingCache
from manyview_server.store.images.shards import SNAPSHOT_DTYPE, ShardReader
from manyview_server.store.records import CheckedImage
from manyview_server.store.store import Store
from manyview_server.supervise.catalogue.catalogue import Backbone, Catalogue, Device, Method
from manyview_server.supervise.catalogue.library_backbones import LibraryBackbone
from manyview_server.supervise.embedders.tables import EmbeddingTables
from manyview_server.supervise.selectors.selector import OnStage, SelectorStage
from manyview_server.worker.selecting import selector

SCHEMA: Any = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "epochs": {"type": "integer", "minimum": 1, "default": 50},
        "evaluation": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "knn_every_epochs": {"type": "integer", "minimum": 0, "default": 1},
                "knn_holdout_fraction": {"type": "number", "minimum": 0, "maximum": 0.9, "default": 0.1},
            },
        },
        "max_steps": {"type": ["integer", "null"], "minimum": 1, "default": None},
        "batch_size": {"type": ["integer", "null"], "minimum": 2, "default": None},
        "temperature": {"type": "number", "exclusiveMinimum": 0, "default": 0.5},
        "views": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "pipelines": {
                    "type": "array",
                    "default": [{"count": 2}],
                    "items": {
                        "type": "object",
                        "properties": {"count": {"type": "integer", "default": 1, "minimum": 1}},
                    },
                }
            },
        },
        "backbone": {"enum": ["resnet18", "resnet34", "timm/none"], "default": "resnet18", "x-fixed": True},
    },
}

CATALOGUE = Catalogue(
    versions={"torch": "0"},
    devices=(Device(name="cpu", description="a pretended CPU", memory_bytes=1 << 30),),
    methods=(Method(name="simclr", title="SimCLR", paper="https://arxiv.org/abs/2002.05709", schema=SCHEMA),),
    backbones=(
        Backbone(name="resnet18", feature_dim=512, num_parameters=11_000_000),
        Backbone(name="thin", feature_dim=3, num_parameters=11),
    ),
)


class FakeEmbedder:
    """Row i is the last byte of image i, three times; of stored images those that begin with "bad" do not decode."""

    def __init__(self) -> None:
        self.is_starting = False
        self.calls: list[dict[str, object]] = []
        self.gate: asyncio.Event | None = None
        self.cancelled = 0
        self.failure: Exception | None = None
        self.scale = 1.0
        self.running = 0
        self.most_running = 0

    async def embed(
        self, recipe: EmbedRecipe, images: Sequence[bytes], *, dataset_dir: str = "", **fields: object
    ) -> EmbedDone:
        self.calls.append({"recipe": recipe, "images": images, "dataset_dir": dataset_dir, **fields})
        if dataset_dir:
            images = [b"" if data.startswith(b"bad") else data for data in stored(dataset_dir, images[0])]
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.failure is not None:
                raise self.failure
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        rows = self.scale * np.array([[image[-1] if image else np.nan] * 3 for image in images], dtype=recipe.data_type)
        empty = [i for i, image in enumerate(images) if not image]
        return EmbedDone(
            request_id=1,
            shape=(len(images), 3),
            errors=tuple(RowFailed(row=i, reason="DECODE_FAILED", message="no bytes") for i in empty),
            queue_ms=1.0,
            decode_ms=2.0,
            forward_ms=3.0,
            batch_images=len(images),
            blobs=(rows.tobytes(),),
        )


def stored(dataset_dir: str, rows: bytes) -> list[bytes]:
    """The images of a snapshot's rows."""
    reader = ShardReader(Path(dataset_dir))
    places = np.frombuffer(rows, SNAPSHOT_DTYPE)
    found = [reader.read(int(row["shard"]), int(row["offset"]), int(row["length"])) for row in places]
    reader.close()
    return found


class LocalSelector:
    """The selector's work, in a thread of this process."""

    def __init__(self) -> None:
        self.asked: list[Message] = []
        self.gate: asyncio.Event | None = None
        self.cancelled = 0
        self.stages: list[SelectorStage] = []
        """The stages that the selector reports before it works."""
        self.answers: list[Message] = []
        """Answers that are returned first, before any work is done."""

    def source(
        self, directory: str, num_rows: int, num_features: int, *, unit: bool, num_neighbors: int = 0
    ) -> RowSource:
        if num_rows * num_features > 3_000_000:
            raise ResourceExhausted("SELECTION_TOO_LARGE", "too many")
        return RowSource(
            directory=directory,
            num_rows=num_rows,
            num_features=num_features,
            unit=unit,
            device="cpu",
            num_threads=1,
        )

    async def ask(self, request: Message, on_stage: OnStage = lambda _: None) -> Message:
        self.asked.append(request)
        for stage in self.stages:
            on_stage(stage)
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.answers:
            return self.answers.pop(0)
        answer = await asyncio.to_thread(selector.answer, request)
        if isinstance(answer, SelectionFailed):
            raise ServiceError(answer.reason, answer.message)
        return answer


class FakePreviewer:
    """Every view of an image is its file; an image that ends in "!" does not decode."""

    def __init__(self) -> None:
        self.calls: list[tuple[PreviewImages, float]] = []
        self.gate: asyncio.Event | None = None
        self.cancelled = 0
        self.failure: Exception | None = None

    async def preview(self, make: Callable[[], Awaitable[PreviewImages]], time_left_s: float) -> PreviewDone:
        request = await make()
        self.calls.append((request, time_left_s))
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        images, blobs = [], []
        for data in request.blobs:
            if not data or data.endswith(b"!"):
                images.append(PreviewedImage(reason="DECODE_FAILED", message="it ends early"))
                continue
            view = PreviewedView(pipeline=0, size=32, parameters={"crop": {"top": 1}, "blur": {"sigma": 1.5}})
            image_id = int.from_bytes(hashlib.sha256(data).digest()[:8], "big") >> 1
            images.append(PreviewedImage(image_id=image_id, width=8, height=9, views=(view,) * 2))
            blobs += [data, data + b" 0", data + b" 1"]
        return PreviewDone(decode_size=64, images=tuple(images), blobs=tuple(blobs))


AUTHORS = Preprocessing(
    image_size=518,
    resize_size=520,
    crop="center",
    interpolation="bicubic",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    source="its authors",
)


class FakeLibraryBackbones:
    """Knows every network but "timm/none", and how its images are prepared, but for "timm/untold"."""

    async def problem(self, name: str) -> str:
        found = await self.find(name)
        return found.problem if found else ""

    async def find(self, name: str) -> LibraryBackbone | None:
        if name == "timm/none":
            return LibraryBackbone(problem="unknown backbone 'timm/none'")
        if name == "timm/silent":
            return None
        return LibraryBackbone(preprocessing=None if name == "timm/untold" else AUTHORS)


class FakeWeightsCheck:
    """Finds that all weights fit, but those of "unfit.safetensors"."""

    async def problem(self, weights_dir: Path, settings: Mapping[str, Any]) -> str:
        file = settings["backbone_weights"]
        return "backbone_weights: 'unfit.safetensors' does not fit" if file == "unfit.safetensors" else ""


class FakeTrainers:
    """Counts how often it is woken."""

    def __init__(self) -> None:
        self.wakes = 0

    def wake(self) -> None:
        self.wakes += 1


@dataclass
class Front:
    """A running front with a channel to it."""

    server: Server
    store: Store
    embedder: FakeEmbedder
    previewer: FakePreviewer
    trainers: FakeTrainers
    selector: LocalSelector
    channel: grpc.aio.Channel
    datasets: dataset_service_pb2_grpc.DatasetServiceStub = field(init=False)
    jobs: train_job_service_pb2_grpc.TrainJobServiceStub = field(init=False)
    embed: embed_service_pb2_grpc.EmbedServiceStub = field(init=False)
    metrics: metrics_service_pb2_grpc.MetricsServiceStub = field(init=False)
    models: model_service_pb2_grpc.ModelServiceStub = field(init=False)

    def __post_init__(self) -> None:
        self.datasets = dataset_service_pb2_grpc.DatasetServiceStub(self.channel)
        self.jobs = train_job_service_pb2_grpc.TrainJobServiceStub(self.channel)
        self.embed = embed_service_pb2_grpc.EmbedServiceStub(self.channel)
        self.metrics = metrics_service_pb2_grpc.MetricsServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)


@pytest.fixture
def options() -> dict[str, object]:
    """Settings that a test module or test overrides."""
    return {}


@pytest.fixture
def offered() -> Catalogue:
    """The methods and backbones that can be trained. A test module may override it."""
    return CATALOGUE


@pytest.fixture
async def front(tmp_path: Path, options: dict[str, Any], offered: Catalogue) -> AsyncIterator[Front]:
    settings = ServeSettings(
        **dict[str, Any]({"listen": "127.0.0.1:0", "data": tmp_path / "data", "heartbeat_s": 0.2} | options)
    )
    store = Store.open(settings.data)
    embedder, previewer, trainers, local = FakeEmbedder(), FakePreviewer(), FakeTrainers(), LocalSelector()
    cache = EmbeddingCache(store.embeddings_dir, settings.embedding_cache_bytes)
    backend = Backend(
        store=store,
        catalogue=offered,
        library_backbones=FakeLibraryBackbones(),
        weights_check=FakeWeightsCheck(),
        trainers=trainers,
        embedder=embedder,
        tables=EmbeddingTables(store, embedder, cache),  # type: ignore[arg-type]
        selector=local,
        previewer=previewer,
    )
    server = Server(settings, backend, "1.2.3", 1000.0)
    address = await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield Front(server, store, embedder, previewer, trainers, local, channel)
    await server.stop(0)
    await store.close()


@pytest.fixture
def png() -> Callable[..., bytes]:
    """Makes a small PNG whose last byte, which decoders ignore, is its shade."""

    def make(shade: int = 0, width: int = 8, height: int = 8) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (width, height), (shade, 0, 0)).save(buffer, "PNG")
        return buffer.getvalue() + bytes([shade])

    return make


@pytest.fixture
def image() -> Callable[..., types_pb2.Image]:
    """Makes an image message with its checksum."""

    def make(data: bytes, key: str = "", label: str = "") -> types_pb2.Image:
        return types_pb2.Image(data=data, key=key, label=label, sha256=hashlib.sha256(data).digest())

    return make


@pytest.fixture
def store_images() -> Callable[..., Awaitable[str]]:
    """Makes a data set of images by their shades: keys "3.png", labels as given, None for one that does not decode."""

    async def make(front: Front, shades: Sequence[int | None], labels: Sequence[str] = (), name: str = "shirts") -> str:
        if name not in [dataset.dataset_id for dataset in (await front.store.datasets.list(100))[0]]:
            await front.store.datasets.create(name)
        session = await front.store.uploads.open(name, f"u{len(shades)}-{shades[0]}")
        files = [b"bad %d" % row if shade is None else b"shade" + bytes([shade]) for row, shade in enumerate(shades)]
        keys = [f"bad{row}.png" if shade is None else f"{shade}.png" for row, shade in enumerate(shades)]
        checked = [
            CheckedImage(
                data=data,
                key=key,
                label=labels[row] if labels else "",
                sha256=hashlib.sha256(data).digest(),
                extension="png",
                width=8,
                height=8,
            )
            for row, (data, key) in enumerate(zip(files, keys, strict=True))
        ]
        await session.append(1, checked)
        return f"datasets/{name}"

    return make


@dataclass(frozen=True)
class Refused:
    """A call's error as a client reads it."""

    code: grpc.StatusCode
    text: str
    reason: str
    metadata: dict[str, str]
    fields: tuple[str, ...]
    field_reasons: tuple[str, ...]
    retry_after_s: float


@pytest.fixture
def refused() -> Callable[[Awaitable[Any]], Awaitable[Refused]]:
    """Awaits a call that is to fail, and reads its details."""

    async def read(call: Awaitable[Any]) -> Refused:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        status = status_pb2.Status()
        trailers: Any = caught.value.trailing_metadata() or ()
        status.ParseFromString(next((value for key, value in trailers if key == "grpc-status-details-bin"), b""))
        info, request, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        for detail in status.details:
            assert any(detail.Unpack(message) for message in (info, request, retry))
        return Refused(
            code=caught.value.code(),
            text=caught.value.details() or "",
            reason=info.reason,
            metadata=dict(info.metadata),
            fields=tuple(violation.field for violation in request.field_violations),
            field_reasons=tuple(violation.reason for violation in request.field_violations),
            retry_after_s=retry.retry_delay.ToMilliseconds() / 1000,
        )

    return read
