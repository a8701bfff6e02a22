"""Data sets and listings over a real port and the real store."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import grpc
import pytest

from manyview.v1 import dataset_service_pb2 as pb
from manyview_server.front.rpc import page_tokens
from manyview_server.store.images.shards import shard_path
from manyview_server.store.records import CheckedImage


async def create(front: Any, dataset_id: str = "shirts", **fields: Any) -> pb.Dataset:
    response = await front.datasets.CreateDataset(pb.CreateDatasetRequest(dataset_id=dataset_id, **fields))
    return response.dataset


async def test_a_data_set_is_created_found_listed_and_deleted(front: Any, refused: Any) -> None:
    dataset = await create(front)
    assert dataset.name == "datasets/shirts"
    assert dataset.create_time.seconds > 0
    assert (await front.datasets.GetDataset(pb.GetDatasetRequest(name=dataset.name))).dataset == dataset
    assert list((await front.datasets.ListDatasets(pb.ListDatasetsRequest())).datasets) == [dataset]
    await front.datasets.DeleteDataset(pb.DeleteDatasetRequest(name=dataset.name))
    error = await refused(front.datasets.GetDataset(pb.GetDatasetRequest(name=dataset.name)))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "DATASET_NOT_FOUND")


@pytest.mark.parametrize("dataset_id", ["", "Shirts", "-shirts", "a/b", "a" * 64, "../x", "a\n"])
async def test_a_bad_id_is_refused_by_its_field(front: Any, refused: Any, dataset_id: str) -> None:
    error = await refused(front.datasets.CreateDataset(pb.CreateDatasetRequest(dataset_id=dataset_id)))
    assert (error.code, error.reason, error.fields) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "FIELD_INVALID",
        ("dataset_id",),
    )


async def test_a_request_sent_again_gets_the_same_answer(front: Any, refused: Any) -> None:
    request_id = str(uuid.uuid4())
    first = await create(front, request_id=request_id)
    again = await create(front, request_id=request_id)
    assert again == first
    error = await refused(front.datasets.CreateDataset(pb.CreateDatasetRequest(dataset_id="b", request_id=request_id)))
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    error = await refused(front.datasets.CreateDataset(pb.CreateDatasetRequest(dataset_id="shirts")))
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "DATASET_EXISTS")
    error = await refused(front.datasets.CreateDataset(pb.CreateDatasetRequest(dataset_id="b", request_id="7")))
    assert error.fields == ("request_id",)


async def test_pages_hold_each_data_set_once(front: Any, refused: Any) -> None:
    for i in range(5):
        await create(front, f"d{i}")
    seen: list[str] = []
    token = ""
    while True:
        page = await front.datasets.ListDatasets(pb.ListDatasetsRequest(page_size=2, page_token=token))
        seen += [dataset.name for dataset in page.datasets]
        token = page.next_page_token
        if not token:
            break
        assert len(page.datasets) == 2
    assert sorted(seen) == [f"datasets/d{i}" for i in range(5)]
    for request in (pb.ListDatasetsRequest(page_size=-1), pb.ListDatasetsRequest(page_size=1001)):
        assert (await refused(front.datasets.ListDatasets(request))).fields == ("page_size",)
    for forged in ("\0", "A", "x" * 100_000):
        token = page_tokens.encode_page_token("datasets", forged)
        request = pb.ListDatasetsRequest(page_token=token)
        assert (await refused(front.datasets.ListDatasets(request))).fields == ("page_token",)
    assert (await refused(front.datasets.ListDatasets(pb.ListDatasetsRequest(page_token="x!")))).fields == (
        "page_token",
    )


async def test_listing_asks_for_known_statuses(front: Any, refused: Any) -> None:
    await create(front)
    request = pb.ListImagesRequest(dataset="datasets/shirts", statuses=[0])  # type: ignore[list-item]
    assert (await refused(front.datasets.ListImages(request))).fields == ("statuses",)
    assert not (await front.datasets.ListImages(pb.ListImagesRequest(dataset="datasets/shirts"))).images


async def test_an_upload_that_never_was_is_not_found(front: Any, refused: Any) -> None:
    await create(front)
    error = await refused(front.datasets.GetUpload(pb.GetUploadRequest(dataset="datasets/shirts", upload_id="u")))
    assert error.reason == "UPLOAD_NOT_FOUND"
    error = await refused(front.datasets.GetUpload(pb.GetUploadRequest(dataset="datasets/shirts", upload_id="")))
    assert error.fields == ("upload_id",)


async def store_images(front: Any, files: dict[str, bytes]) -> str:
    """A data set "shirts" with these files by their keys; its directory's uid."""
    dataset = await front.store.datasets.create("shirts")
    session = await front.store.uploads.open("shirts", "u")
    checked = [
        CheckedImage(
            data=data, key=key, label="", sha256=hashlib.sha256(data).digest(), extension="png", width=8, height=8
        )
        for key, data in files.items()
    ]
    await session.append(1, checked)
    return dataset.uid


async def test_a_stored_image_comes_back_as_it_was_sent_by_key_and_by_id(front: Any, png: Any) -> None:
    await store_images(front, {"a.png": png(1), "b.png": png(2)})
    by_key = pb.GetImageRequest(dataset="datasets/shirts", image=pb.ImageRef(key="b.png"))
    answer = await front.datasets.GetImage(by_key)
    assert (answer.data, answer.image.key, answer.image.width) == (png(2), "b.png", 8)
    by_id = pb.GetImageRequest(dataset="datasets/shirts", image=pb.ImageRef(image_id=answer.image.image_id))
    assert await front.datasets.GetImage(by_id) == answer


@pytest.mark.parametrize(
    ("ref", "field"),
    [
        ({}, "image"),
        ({"key": ""}, "image"),
        ({"image_id": "12"}, "image.image_id"),
        ({"image_id": "X" * 16}, "image.image_id"),
        ({"image_id": "f" * 16}, "image.image_id"),
        ({"image_id": "0" * 16}, "image.image_id"),
    ],
)
async def test_what_names_no_image_is_refused(front: Any, refused: Any, ref: dict[str, str], field: str) -> None:
    await create(front)
    error = await refused(
        front.datasets.GetImage(pb.GetImageRequest(dataset="datasets/shirts", image=pb.ImageRef(**ref)))
    )
    assert (error.code, error.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))


async def test_an_image_whose_bytes_the_disk_changed_or_lost_is_data_loss(front: Any, refused: Any, png: Any) -> None:
    uid = await store_images(front, {"a.png": png(1)})
    request = pb.GetImageRequest(dataset="datasets/shirts", image=pb.ImageRef(key="a.png"))
    shard = shard_path(front.store.datasets.directory(uid), 0)
    whole = shard.read_bytes()
    shard.write_bytes(whole.replace(png(1), png(1)[:-1] + b"x"))
    error = await refused(front.datasets.GetImage(request))
    assert (error.code, error.reason) == (grpc.StatusCode.DATA_LOSS, "CHECKSUM_MISMATCH")
    shard.write_bytes(whole[:520])
    error = await refused(front.datasets.GetImage(request))
    assert (error.code, error.reason) == (grpc.StatusCode.DATA_LOSS, "IMAGE_LOST")
    assert str(front.store.datasets.directory(uid)) not in error.text
    shard.write_bytes(whole)
    assert (await front.datasets.GetImage(request)).data == png(1)
    error = await refused(front.datasets.GetImage(pb.GetImageRequest(dataset="datasets/no", image=request.image)))
    assert error.reason == "DATASET_NOT_FOUND"
