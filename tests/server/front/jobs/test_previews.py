"""PreviewViews asks for the right images with the right configuration, and refuses what it cannot do."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, struct_pb2

from manyview.v1 import dataset_service_pb2 as datasets
from manyview.v1 import train_job_service_pb2 as pb
from manyview_server.errors import FailedPrecondition
from manyview_server.front.datasets.image_check import check_upload
from manyview_server.front.limits import ImageLimits


def struct(values: dict[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict(values, struct_pb2.Struct())


def stored(**ref: str) -> pb.PreviewImage:
    return pb.PreviewImage(stored=datasets.ImageRef(**ref))


@pytest.fixture
def sent(image: Any, png: Any) -> Any:
    return lambda shade=0: pb.PreviewImage(image=image(png(shade)))


@pytest.fixture
async def pets(front: Any, image: Any, png: Any) -> list[bytes]:
    """The data set "pets" of three images, "0", "1" and "2", and a job "job" over it."""
    files = [png(shade) for shade in range(3)]
    limits = ImageLimits(max_bytes=1 << 20, max_pixels=1 << 20, max_side=1 << 10)
    await front.store.datasets.create("pets")
    session = await front.store.uploads.open("pets", "u")
    images = [image(file, key=str(key)) for key, file in enumerate(files)]
    await session.append(1, check_upload(images, limits))
    await session.finish(3)
    request = pb.CreateTrainJobRequest(
        train_job_id="job", dataset="datasets/pets", method="simclr", config=struct({"epochs": 7})
    )
    await front.jobs.CreateTrainJob(request)
    return files


async def test_sent_images_are_previewed_with_a_method_and_its_configuration(front: Any, sent: Any, png: Any) -> None:
    reply = await front.jobs.PreviewViews(
        pb.PreviewViewsRequest(
            method="simclr", config=struct({"temperature": 0.1}), epoch=4, images=[sent(1), sent(2)]
        ),
        timeout=30,
    )
    ((request, time_left_s),) = front.previewer.calls
    assert (request.settings["temperature"], request.settings["epochs"], request.epoch) == (0.1, 50, 4)
    assert request.blobs == (png(1), png(2))
    assert request.max_pixel_bytes == int(0.9 * (16 << 20))
    assert 25 < time_left_s < 31, "gRPC rounds a deadline up"
    assert reply.decode_size == 64
    for shade, image in enumerate(reply.images, start=1):
        assert int(image.image_id, 16) == int.from_bytes(hashlib.sha256(png(shade)).digest()[:8], "big") >> 1
        assert (image.width, image.height, image.original) == (8, 9, png(shade))
        assert [view.png for view in image.views] == [png(shade) + b" 0", png(shade) + b" 1"]
        assert [(view.pipeline, view.size) for view in image.views] == [(0, 32)] * 2
        assert list(json.loads(image.views[0].parameters_json)) == ["crop", "blur"]


async def test_a_job_s_images_are_previewed_with_its_configuration(
    front: Any, pets: list[bytes], sent: Any, png: Any
) -> None:
    request = pb.PreviewViewsRequest(train_job="trainJobs/job", images=[stored(key="2"), sent(9), stored(key="0")])
    reply = await front.jobs.PreviewViews(request)
    ((asked, time_left_s),) = front.previewer.calls
    assert (asked.settings["epochs"], asked.epoch, time_left_s) == (7, 0, 0.0)
    assert asked.blobs == (pets[2], png(9), pets[0])
    by_id = pb.PreviewViewsRequest(train_job="trainJobs/job", images=[stored(image_id=reply.images[0].image_id)])
    assert (await front.jobs.PreviewViews(by_id)).images[0].original == pets[2]


async def test_stored_images_of_another_data_set_are_looked_for_there(front: Any, pets: list[bytes]) -> None:
    request = pb.PreviewViewsRequest(method="simclr", dataset="datasets/pets", images=[stored(key="1")])
    assert (await front.jobs.PreviewViews(request)).images[0].original == pets[1]


async def test_images_that_cannot_be_read_have_an_error_and_cost_no_other_one(
    front: Any, pets: list[bytes], image: Any, png: Any
) -> None:
    await mark_unreadable(front, "DECODER_CRASHED")
    request = pb.PreviewViewsRequest(
        train_job="trainJobs/job",
        images=[
            stored(key="0"),
            pb.PreviewImage(image=image(b"<svg")),
            pb.PreviewImage(image=image(png(5) + b"!")),
            stored(key="1"),
        ],
    )
    reply = await front.jobs.PreviewViews(request)
    reasons = [found.error.reason for found in reply.images]
    assert reasons == ["DECODER_CRASHED", "FORMAT_NOT_ALLOWED", "DECODE_FAILED", ""]
    assert [len(found.views) for found in reply.images] == [0, 0, 0, 2]
    assert front.previewer.calls[0][0].blobs == (b"", b"", png(5) + b"!", pets[1]), "it is not decoded again"


async def mark_unreadable(front: Any, reason: str) -> None:
    """The first image."""
    (record,), _ = await front.store.datasets.images("pets", [], 1)
    uid = (await front.store.datasets.get("pets")).uid
    await front.store.datasets.mark_unreadable(uid, record.image_id, reason, "it kills the decoder")


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        ({"method": "simcrl"}, "method", "did you mean 'simclr'?"),
        ({"method": ""}, "method", "is not known"),
        ({"config": struct({"epohcs": 1})}, "config.epohcs", "did you mean 'epochs'?"),
        ({"epoch": -1}, "epoch", "-1 is outside of 0 to 1,000,000,000"),
        ({"images": []}, "images", "0 images; a preview has 1 to 16"),
        ({"images": [stored(key="0")] * 17}, "images", "17 images; a preview has 1 to 16"),
        (
            {"config": struct({"views": {"pipelines": [{"count": 30}]}}), "images": [stored(key="0")] * 10},
            "images",
            "10 images with 30 views each are 300 views; a preview has at most 256",
        ),
        ({"images": [pb.PreviewImage()]}, "images[0]", "is empty"),
        ({"images": [stored(key="")]}, "images[0].stored", "names no image"),
        ({"images": [stored(image_id="xyz")]}, "images[0].stored.image_id", "is not an image id"),
        ({"dataset": ""}, "dataset", "is required for stored images"),
        ({"dataset": "pets"}, "dataset", "is not of the form datasets/{id}"),
        ({"train_job": "trainJobs/job"}, "method", "has no effect with train_job"),
        (
            {"train_job": "trainJobs/job", "method": "", "config": struct({})},
            "config",
            "has no effect with train_job",
        ),
        ({"train_job": "job", "method": ""}, "train_job", "is not of the form trainJobs/{id}"),
    ],
)
async def test_what_is_wrong_with_a_request_is_named(
    front: Any, pets: list[bytes], refused: Any, changes: dict[str, Any], field: str, text: str
) -> None:
    fields = {"method": "simclr", "dataset": "datasets/pets", "images": [stored(key="0")], **changes}
    error = await refused(front.jobs.PreviewViews(pb.PreviewViewsRequest(**fields)))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert error.fields == (field,)
    assert text in error.text
    assert front.previewer.calls == []


async def test_a_data_set_without_a_stored_image_is_refused(
    front: Any, pets: list[bytes], refused: Any, sent: Any
) -> None:
    request = pb.PreviewViewsRequest(method="simclr", dataset="datasets/pets", images=[sent()])
    assert (
        "has no effect, because the request names no stored image"
        in (await refused(front.jobs.PreviewViews(request))).text
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"train_job": "trainJobs/none"}, "TRAIN_JOB_NOT_FOUND"),
        ({"method": "simclr", "dataset": "datasets/none"}, "DATASET_NOT_FOUND"),
        ({"method": "simclr", "dataset": "datasets/pets", "images": [stored(key="x")]}, "IMAGE_NOT_FOUND"),
    ],
)
async def test_what_is_not_there_is_not_found(
    front: Any, pets: list[bytes], refused: Any, fields: dict[str, Any], reason: str
) -> None:
    request = pb.PreviewViewsRequest(**{"images": [stored(key="0")], **fields})
    error = await refused(front.jobs.PreviewViews(request))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, reason)


async def test_what_the_previewer_refuses_is_the_callers(front: Any, sent: Any, refused: Any) -> None:
    front.previewer.failure = FailedPrecondition("PLUGIN_FAILED", "plugin 'x' failed")
    error = await refused(front.jobs.PreviewViews(pb.PreviewViewsRequest(method="simclr", images=[sent()])))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PLUGIN_FAILED")


async def test_a_caller_that_goes_away_takes_the_work_with_it(front: Any, sent: Any) -> None:
    front.previewer.gate = asyncio.Event()
    call = front.jobs.PreviewViews(pb.PreviewViewsRequest(method="simclr", images=[sent()]))
    task = asyncio.ensure_future(call)
    async with asyncio.timeout(10):
        while not front.previewer.calls:
            await asyncio.sleep(0.01)
        call.cancel()
        while not front.previewer.cancelled:
            await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await task
