"""Embedding over a real port, the worker pretended: rows, order, pinning, cancellation, errors."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest

from manyview.v1 import embed_service_pb2 as pb
from manyview.v1 import types_pb2
from manyview_server.errors import ResourceExhausted

BACKBONE = "backbones/resnet18"
CARD = {
    "method": "simclr",
    "backbone": "resnet18",
    "feature_dim": 512,
    "projection_dim": 128,
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "image_size": 32,
}


@pytest.fixture
async def job(front: Any) -> str:
    await front.store.datasets.create("shirts")
    await front.store.jobs.create("j", "shirts", "simclr", {}, "1")
    await add_checkpoint(front, 10)
    return "trainJobs/j"


async def add_checkpoint(front: Any, step: int) -> None:
    await front.store.checkpoints.add(
        "j", step=step, epoch=1, attempt=1, directory=f"/checkpoints/{step}", num_bytes=5, model=CARD
    )


def array(tensor: types_pb2.Tensor) -> np.ndarray[Any, Any]:
    dtype = {1: "<f4", 2: "<f2"}[tensor.data_type]
    return np.frombuffer(tensor.data, dtype).reshape(tensor.shape)


async def test_rows_stand_in_the_order_of_the_images(front: Any, png: Any, image: Any) -> None:
    request = pb.EmbedRequest(model=BACKBONE, images=[image(png(shade)) for shade in (3, 1, 2)])
    response = await front.embed.Embed(request, timeout=20)
    assert array(response.embeddings)[:, 0].tolist() == [3, 1, 2]
    assert response.checkpoint == BACKBONE
    assert response.timing.batch_images == 3
    call = front.embedder.calls[0]
    model = call["recipe"].model
    assert (model.backbone, model.checkpoint_dir, model.weights_file) == ("resnet18", "", "")
    assert 15 < call["time_left_s"] < 21  # gRPC's clocks may differ by some milliseconds


async def test_options_reach_the_worker(front: Any, png: Any, image: Any, job: str) -> None:
    options = pb.EmbedOptions(
        output=pb.EmbedOptions.OUTPUT_PROJECTION, l2_normalize=True, data_type=types_pb2.Tensor.DATA_TYPE_FLOAT16
    )
    response = await front.embed.Embed(pb.EmbedRequest(model=job, images=[image(png(7))], options=options))
    call = front.embedder.calls[0]
    recipe = call["recipe"]
    assert (recipe.model.output, recipe.l2_normalize, recipe.data_type) == ("projection", True, "float16")
    assert call["time_left_s"] == 0
    assert recipe.model.checkpoint_dir.endswith("/checkpoints/10")
    assert response.embeddings.data_type == types_pb2.Tensor.DATA_TYPE_FLOAT16
    assert array(response.embeddings).tolist() == [[7, 7, 7]]


async def test_an_image_that_its_header_rules_out_is_a_row_of_its_own(front: Any, png: Any, image: Any) -> None:
    damaged = types_pb2.Image(data=png(1), sha256=bytes(32))
    images = [image(png(1)), image(b"8BPS...."), types_pb2.Image(data=png(2)), damaged, image(b"")]
    response = await front.embed.Embed(pb.EmbedRequest(model=BACKBONE, images=images))
    reasons = {error.row: error.error.reason for error in response.errors}
    assert reasons == {1: "FORMAT_NOT_ALLOWED", 3: "CHECKSUM_MISMATCH", 4: "IMAGE_EMPTY"}
    assert np.isnan(array(response.embeddings)[:, 0]).tolist() == [False, True, False, True, True]
    assert [len(blob) > 0 for blob in front.embedder.calls[0]["images"]] == [True, False, True, False, False]


async def test_a_jobs_name_means_its_newest_checkpoint_and_the_answer_pins_it(
    front: Any, png: Any, image: Any, job: str
) -> None:
    await add_checkpoint(front, 20)
    response = await front.embed.Embed(pb.EmbedRequest(model=job, images=[image(png(1))]))
    assert response.checkpoint == "trainJobs/j/checkpoints/20"
    assert (await front.store.checkpoints.get("j", 20)).pinned
    assert not (await front.store.checkpoints.get("j", 10)).pinned
    older = pb.EmbedRequest(model="trainJobs/j/checkpoints/10", images=[image(png(1))])
    assert (await front.embed.Embed(older)).checkpoint == "trainJobs/j/checkpoints/10"


@pytest.mark.parametrize(
    ("fields", "code", "reason", "name"),
    [
        ({"images": []}, grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", ("images",)),
        ({"model": "resnet18"}, grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", ("model",)),
        ({"model": "backbones/vgg"}, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", ()),
        ({"model": "trainJobs/none"}, grpc.StatusCode.NOT_FOUND, "TRAIN_JOB_NOT_FOUND", ()),
        ({"options": {"output": 9}}, grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", ("options.output",)),
        ({"options": {"data_type": 9}}, grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", ("options.data_type",)),
        ({"options": {"output": 2}}, grpc.StatusCode.FAILED_PRECONDITION, "NO_PROJECTION_HEAD", ()),
    ],
)
async def test_what_cannot_be_embedded_is_refused(
    front: Any, png: Any, image: Any, refused: Any, fields: Any, code: Any, reason: str, name: Any
) -> None:
    request = pb.EmbedRequest(**{"model": BACKBONE, "images": [image(png(1))], **fields})
    error = await refused(front.embed.Embed(request))
    assert (error.code, error.reason, error.fields) == (code, reason, name)


async def test_a_caller_that_hangs_up_cancels_its_work(front: Any, png: Any, image: Any) -> None:
    front.embedder.gate = asyncio.Event()
    call = front.embed.Embed(pb.EmbedRequest(model=BACKBONE, images=[image(png(1))]))
    while not front.embedder.running:
        await asyncio.sleep(0.01)
    call.cancel()
    async with asyncio.timeout(5):
        while not front.embedder.cancelled:
            await asyncio.sleep(0.01)


async def test_a_full_queue_says_when_to_come_back(front: Any, png: Any, image: Any, refused: Any) -> None:
    front.embedder.failure = ResourceExhausted("EMBED_QUEUE_FULL", "4,096 images wait", retry_after_s=0.5)
    error = await refused(front.embed.Embed(pb.EmbedRequest(model=BACKBONE, images=[image(png(1))])))
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "EMBED_QUEUE_FULL")
    assert error.retry_after_s == 0.5


def header(model: str = BACKBONE) -> pb.EmbedStreamRequest:
    return pb.EmbedStreamRequest(header=pb.EmbedHeader(model=model))


def batch(number: int, images: list[types_pb2.Image]) -> pb.EmbedStreamRequest:
    return pb.EmbedStreamRequest(batch=types_pb2.ImageBatch(number=number, images=images))


async def test_a_stream_answers_in_order_within_its_window(front: Any, png: Any, image: Any) -> None:
    front.embedder.gate = asyncio.Event()
    call = front.embed.EmbedStream()
    await call.write(header())
    assert (await call.read()).opened.max_unanswered_batches == 4
    for number in range(1, 13):
        await call.write(batch(number, [image(png(number)), image(png(number + 100))]))
    await asyncio.sleep(0.3)
    assert front.embedder.running == 4
    front.embedder.gate.set()
    await call.done_writing()
    results = [(await call.read()).result for _ in range(12)]
    assert await call.read() is grpc.aio.EOF  # type: ignore[attr-defined]
    assert [result.number for result in results] == list(range(1, 13))
    assert [array(r.embeddings)[:, 0].tolist() for r in results] == [[n, n + 100] for n in range(1, 13)]
    assert front.embedder.most_running == 4
    assert await call.code() == grpc.StatusCode.OK


async def test_a_stream_stays_with_its_checkpoint_while_training_goes_on(
    front: Any, png: Any, image: Any, job: str
) -> None:
    call = front.embed.EmbedStream()
    await call.write(header(job))
    assert (await call.read()).opened.checkpoint == "trainJobs/j/checkpoints/10"
    await add_checkpoint(front, 20)
    await call.write(batch(1, [image(png(1))]))
    await call.read()
    await call.done_writing()
    assert [c["recipe"].model.checkpoint_dir.split("/")[-1] for c in front.embedder.calls] == ["10"]


async def test_errors_of_a_stream_come_after_the_results_before_them(front: Any, png: Any, image: Any) -> None:
    call = front.embed.EmbedStream()
    await call.write(header())
    await call.write(batch(1, [image(png(1))]))
    await call.write(batch(3, [image(png(3))]))
    await call.done_writing()
    kinds = [(await call.read()) for _ in range(3)]
    assert [response.WhichOneof("payload") for response in kinds] == ["opened", "result", "error"]
    assert (kinds[2].error.reason, kinds[2].error.metadata["expected"]) == ("SEQUENCE_GAP", "2")
    assert await call.code() == grpc.StatusCode.ABORTED


async def test_a_stream_that_is_cancelled_cancels_all_its_work(front: Any, png: Any, image: Any) -> None:
    front.embedder.gate = asyncio.Event()
    call = front.embed.EmbedStream()
    await call.write(header())
    for number in range(1, 4):
        await call.write(batch(number, [image(png(number))]))
    while front.embedder.running < 3:
        await asyncio.sleep(0.01)
    call.cancel()
    async with asyncio.timeout(5):
        while front.embedder.cancelled < 3:
            await asyncio.sleep(0.01)


async def test_a_stream_begins_with_a_header(front: Any, png: Any, image: Any) -> None:
    call = front.embed.EmbedStream()
    await call.write(batch(1, [image(png(1))]))
    await call.done_writing()
    assert (await call.read()).error.reason == "FIELD_INVALID"
    assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
