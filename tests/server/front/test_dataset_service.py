"""Data sets and listings over a real port and the real store."""

from __future__ import annotations

import uuid
from typing import Any

import grpc
import pytest

from manyview.v1 import dataset_service_pb2 as pb


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
    assert (await refused(front.datasets.ListDatasets(pb.ListDatasetsRequest(page_token="x!")))).fields == (
        "page_token",
    )


async def test_listing_asks_for_known_statuses(front: Any, refused: Any) -> None:
    await create(front)
    request = pb.ListImagesRequest(dataset="datasets/shirts", statuses=[0])
    assert (await refused(front.datasets.ListImages(request))).fields == ("statuses",)
    assert not (await front.datasets.ListImages(pb.ListImagesRequest(dataset="datasets/shirts"))).images


async def test_an_upload_that_never_was_is_not_found(front: Any, refused: Any) -> None:
    await create(front)
    error = await refused(front.datasets.GetUpload(pb.GetUploadRequest(dataset="datasets/shirts", upload_id="u")))
    assert error.reason == "UPLOAD_NOT_FOUND"
    error = await refused(front.datasets.GetUpload(pb.GetUploadRequest(dataset="datasets/shirts", upload_id="")))
    assert error.fields == ("upload_id",)
