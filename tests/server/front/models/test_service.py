"""Models, exports and the server's own description."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from manyview.v1 import model_service_pb2 as pb
from manyview_server.front.models.resolution import Models
from manyview_server.front.models.service import CHUNK_BYTES
from manyview_server.front.rpc import page_tokens
from manyview_server.front.rpc.resource_names import ModelName
from manyview_server.store.jobs import checkpoints
from manyview_server.supervise.catalogue.catalogue import Catalogue

CARD = {
    "method": "simclr",
    "backbone": "resnet18",
    "feature_dim": 512,
    "projection_dim": 128,
    "image_size": 32,
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.2, 0.2],
}
WEIGHTS = bytes(range(256)) * 10_000


@pytest.fixture
async def job(front: Any) -> str:
    await front.store.datasets.create("shirts")
    await front.store.jobs.create("j", "shirts", "simclr", {}, "1")
    for step in (10, 20, 30):
        await add_checkpoint(front, step)
    return "trainJobs/j"


async def add_checkpoint(front: Any, step: int) -> Path:
    uid = (await front.store.jobs.get("j")).uid
    directory = front.store.checkpoints.directory(uid) / checkpoints.name(step, 1)
    manifest = checkpoints.write(directory, {checkpoints.BACKBONE: WEIGHTS})
    size = checkpoints.num_bytes(manifest)
    await front.store.checkpoints.add(
        "j", step=step, epoch=1, attempt=1, directory=str(directory), num_bytes=size, model=CARD
    )
    return directory


async def test_checkpoints_come_newest_first_and_then_the_backbones(front: Any, job: str) -> None:
    models = (await front.models.ListModels(pb.ListModelsRequest())).models
    plain = ["backbones/resnet18", "backbones/thin"]
    assert [model.name for model in models] == [f"{job}/checkpoints/{s}" for s in (30, 20, 10)] + plain
    assert (models[0].weights, models[0].projection_dim, models[0].train_job) == ("trained", 128, job)
    assert (models[3].weights, models[3].projection_dim, models[3].num_bytes) == ("random", 0, 0)
    (front.store.weights_dir / "resnet18.safetensors").write_bytes(b"weights")
    plain = (await front.models.GetModel(pb.GetModelRequest(name="backbones/resnet18"))).model
    assert (plain.weights, plain.num_bytes) == ("file", 7)


async def test_a_librarys_network_is_a_model_by_its_name_and_takes_the_operators_file(front: Any) -> None:
    name = "backbones/timm/vit_tiny_patch16_224"
    plain = (await front.models.GetModel(pb.GetModelRequest(name=name))).model
    assert (plain.name, plain.backbone, plain.weights) == (name, "timm/vit_tiny_patch16_224", "random")
    assert plain.feature_dim == 0
    stated = plain.preprocessing
    assert (plain.image_size, stated.image_size, stated.resize_size) == (518, 518, 520)
    assert (stated.crop, stated.source) == (pb.Preprocessing.CROP_CENTER, "its authors")
    (front.store.weights_dir / "timm").mkdir()
    (front.store.weights_dir / "timm" / "vit_tiny_patch16_224.safetensors").write_bytes(b"weights")
    plain = (await front.models.GetModel(pb.GetModelRequest(name=name))).model
    assert (plain.weights, plain.num_bytes) == ("file", 7)


async def test_pages_survive_checkpoints_that_come_and_go(front: Any, job: str, refused: Any) -> None:
    first = await front.models.ListModels(pb.ListModelsRequest(train_job=job, page_size=2))
    assert [model.step for model in first.models] == [30, 20]
    await add_checkpoint(front, 40)
    await front.store.checkpoints.delete("j", 20)
    request = pb.ListModelsRequest(train_job=job, page_size=2, page_token=first.next_page_token)
    second = await front.models.ListModels(request)
    assert [model.step for model in second.models] == [10]
    assert second.next_page_token == ""
    for forged in ("abc", ",", "x,trainJobs/j", "9" * 20 + ",trainJobs/j", "1,\0"):
        token = page_tokens.encode_page_token("models/", forged)
        assert (await refused(front.models.ListModels(pb.ListModelsRequest(page_token=token)))).fields == (
            "page_token",
        )
    other = pb.ListModelsRequest(page_token=first.next_page_token)
    assert (await refused(front.models.ListModels(other))).fields == ("page_token",)


async def test_a_jobs_name_means_its_newest_checkpoint(front: Any, job: str, refused: Any) -> None:
    assert (await front.models.GetModel(pb.GetModelRequest(name=job))).model.step == 30
    missing = pb.GetModelRequest(name=f"{job}/checkpoints/11")
    error = await refused(front.models.GetModel(missing))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert (await refused(front.models.GetModel(pb.GetModelRequest(name="j")))).fields == ("name",)


async def test_an_export_is_the_file_in_chunks_with_its_hash(front: Any, job: str) -> None:
    call = front.models.ExportModel(pb.ExportModelRequest(name=job))
    header, *chunks = [response async for response in call]
    data = b"".join(response.chunk for response in chunks)
    assert data == WEIGHTS
    assert header.header.sha256 == hashlib.sha256(data).digest()
    assert header.header.num_bytes == len(data)
    assert header.header.model.step == 30
    assert max(len(response.chunk) for response in chunks) == CHUNK_BYTES


async def test_damaged_weights_are_not_exported(front: Any, job: str, refused: Any) -> None:
    path = await add_checkpoint(front, 50) / checkpoints.BACKBONE
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    error = await refused(front.models.ExportModel(pb.ExportModelRequest(name=job)).read())
    assert (error.code, error.reason) == (grpc.StatusCode.DATA_LOSS, "CHECKPOINT_CORRUPT")
    assert str(path.parent) not in error.text


async def test_random_weights_are_not_exported_and_a_file_is(front: Any, refused: Any) -> None:
    request = pb.ExportModelRequest(name="backbones/resnet18")
    error = await refused(front.models.ExportModel(request).read())
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WEIGHTS_RANDOM")
    (front.store.weights_dir / "resnet18.safetensors").write_bytes(b"weights")
    _, chunk = [response async for response in front.models.ExportModel(request)]
    assert chunk.chunk == b"weights"


@pytest.fixture
def options() -> dict[str, object]:
    return {"max_image_side": 1234, "max_batch_images": 17}


async def test_a_model_tells_how_its_images_are_prepared(front: Any, job: str, refused: Any) -> None:
    async def told(name: str) -> pb.Model:
        return (await front.models.GetModel(pb.GetModelRequest(name=name))).model

    trained = (await told(job)).preprocessing
    assert (trained.image_size, trained.resize_size, trained.crop) == (32, 32, pb.Preprocessing.CROP_SQUASH)
    assert ([*trained.mean], [*trained.std]) == (CARD["mean"], CARD["std"])
    assert trained.source == f"{job}/checkpoints/30"
    own = await told("backbones/resnet18")
    assert (own.image_size, own.preprocessing.source) == (224, "manyview's default")
    for name in ("timm/untold", "timm/silent"):
        untold = await told(f"backbones/{name}")
        assert (untold.image_size, untold.HasField("preprocessing")) == (0, False)
    assert (await refused(front.models.GetModel(pb.GetModelRequest(name="backbones/timm/none")))).reason == (
        "MODEL_NOT_FOUND"
    )
    file = front.store.weights_dir / "timm" / "untold.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    told_by_operator = {"image_size": 96, "resize_size": 96, "crop": "squash", "interpolation": "bilinear"}
    beside = file.with_name("untold.preprocessing.json")
    beside.write_text(json.dumps({**told_by_operator, "mean": [0.5] * 3, "std": [0.5] * 3}))
    stated = (await told("backbones/timm/untold")).preprocessing
    assert (stated.image_size, stated.source) == (96, "the server's untold.preprocessing.json")
    beside.write_text("{}")
    assert not (await told("backbones/timm/untold")).HasField("preprocessing"), "an embedding says what is wrong"


async def test_the_server_tells_its_limits_and_devices(front: Any) -> None:
    info = await front.models.GetServerInfo(pb.GetServerInfoRequest())
    assert (info.version, info.start_time.seconds) == ("1.2.3", 1000)
    assert (info.limits.max_image_side, info.limits.max_batch_images) == (1234, 17)
    assert info.limits.max_message_bytes == 36 << 20
    assert [device.name for device in info.devices] == ["cpu"]


async def test_a_checkpoint_is_remembered_until_the_next_commit(
    front: Any, job: str, offered: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = Models(front.store, offered, front.server.backend.library_backbones)
    newest = ModelName(train_job_id="j")
    found = await models.resolve(newest)
    assert found.name == f"{job}/checkpoints/30"
    read: list[str] = []
    monkeypatch.setattr(front.store.checkpoints, "get", lambda *args: read.append("read"))
    assert await models.resolve(newest) is found
    assert read == []
    monkeypatch.undo()
    assert (await models.resolve_and_pin(newest)).checkpoint == found.checkpoint
    pinned = (await models.resolve(newest)).checkpoint
    assert pinned is not None
    assert pinned.pinned
    await add_checkpoint(front, 40)
    assert (await models.resolve(newest)).name == f"{job}/checkpoints/40"
    await front.store.checkpoints.delete("j", 40)
    assert (await models.resolve(newest)).name == f"{job}/checkpoints/30"
