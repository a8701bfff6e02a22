"""EmbedDataset over a real port, with real tables and an embedder that pretends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import numpy as np
import pytest

from manyview.v1 import embed_service_pb2 as pb
from manyview.v1 import types_pb2
from manyview_server.front.embeddings import dataset_export
from manyview_server.front.embeddings.export_cursor import CURSOR, request_scope
from manyview_server.front.rpc import page_tokens
from manyview_server.store import array_file
from manyview_server.store.embeddings import tables

MODEL = "backbones/thin"


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (tables, dataset_export):
        monkeypatch.setattr(module, "SEGMENT_ROWS", 4)
    monkeypatch.setattr("manyview_server.supervise.embedders.tables.SEGMENT_ROWS", 4)
    monkeypatch.setattr("manyview_server.worker.selecting.selector.SEGMENT_ROWS", 4)
    monkeypatch.setattr(dataset_export, "PAGE_BYTES", 3 * (4 * 3 + dataset_export.IMAGE_BYTES))


def ask(dataset: str = "datasets/shirts", model: str = MODEL, **fields: Any) -> pb.EmbedDatasetRequest:
    return pb.EmbedDatasetRequest(dataset=dataset, model=model, **fields)


async def answers(front: Any, request: pb.EmbedDatasetRequest) -> list[pb.EmbedDatasetResponse]:
    found = [response async for response in front.embed.EmbedDataset(request)]
    return [response for response in found if response.WhichOneof("payload") != "progress"]


def rows(page: pb.EmbeddingsPage) -> np.ndarray[Any, Any]:
    dtype = {1: "<f4", 2: "<f2"}[page.embeddings.data_type]
    return np.frombuffer(page.embeddings.data, dtype).reshape(page.embeddings.shape)


def pages(responses: list[pb.EmbedDatasetResponse]) -> list[pb.EmbeddingsPage]:
    return [response.page for response in responses if response.HasField("page")]


async def test_the_rows_of_a_data_set_come_in_pages_in_its_order(front: Any, store_images: Any) -> None:
    await store_images(front, [9, 7, None, 5, 3, 1], labels=["a", "b", "", "a", "b", "a"])
    opened, *middle, end = await answers(front, ask())
    assert (opened.opened.checkpoint, opened.opened.version) == (MODEL, 6)
    found = pages(middle)
    assert [page.first_row for page in found] == [0, 3, 4]
    whole = np.concatenate([rows(page) for page in found])
    np.testing.assert_array_equal(whole, np.array([[9, 7, np.nan, 5, 3, 1]] * 3, np.float32).T)
    images = [image for page in found for image in page.images]
    assert [(image.key, image.label) for image in images[:3]] == [("9.png", "a"), ("7.png", "b"), ("bad2.png", "")]
    assert [(error.row, error.error.reason) for page in found for error in page.errors] == [(2, "DECODE_FAILED")]
    assert end.end.num_images == 6


async def test_an_unreadable_image_is_noted_and_the_next_caller_pays_nothing(front: Any, store_images: Any) -> None:
    await store_images(front, [1, None, 2])
    first = await answers(front, ask())
    assert (await front.store.datasets.get("shirts")).num_unreadable == 1
    calls = len(front.embedder.calls)
    assert pages(await answers(front, ask()))[0].embeddings == pages(first)[0].embeddings
    assert len(front.embedder.calls) == calls


async def test_a_table_grows_with_its_data_set_and_serves_each_version(front: Any, store_images: Any) -> None:
    await store_images(front, [1, 2, 3, 4, 5])
    await answers(front, ask())
    await store_images(front, [6, 7, 8, 9])
    front.embedder.calls.clear()
    grown = np.concatenate([rows(page) for page in pages(await answers(front, ask()))])
    assert grown[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    asked = sum(len(call["images"][0]) for call in front.embedder.calls) // 36
    assert asked == 4, "only what was added"
    first = np.concatenate([rows(page) for page in pages(await answers(front, ask(version=2)))])
    assert first[:, 0].tolist() == [1, 2]


@pytest.mark.parametrize("after", [0, 1, 2, 3])
async def test_a_stream_goes_on_where_another_one_stopped(
    front: Any, store_images: Any, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    await store_images(front, list(range(10, 20)))
    whole = await answers(front, ask())
    token = whole[after].page.page_token or whole[after].opened.page_token
    await store_images(front, [99])
    resumed = await answers(front, ask(page_token=token))
    assert resumed[0].opened.version == 10
    assert pages(resumed) == pages(whole)[after:]
    assert resumed[-1].end.num_images == 10


async def test_a_resumed_stream_stays_with_its_checkpoint(front: Any, store_images: Any) -> None:
    await store_images(front, [1, 2, 3, 4, 5])
    await front.store.jobs.create("j", "shirts", "simclr", {}, "1")
    card = {"method": "simclr", "backbone": "thin", "feature_dim": 3, "projection_dim": 128, "image_size": 32}
    card |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    for step in (10, 20):
        await front.store.checkpoints.add(
            "j", step=step, epoch=1, attempt=1, directory=f"/c/{step:09d}-1", num_bytes=5, model=card
        )
        if step == 10:
            before = await answers(front, ask(model="trainJobs/j"))
    token = before[1].page.page_token
    assert (await front.store.checkpoints.get("j", 10)).pinned
    resumed = await answers(front, ask(model="trainJobs/j", page_token=token))
    assert resumed[0].opened.checkpoint == "trainJobs/j/checkpoints/10"
    fresh = await answers(front, ask(model="trainJobs/j"))
    assert fresh[0].opened.checkpoint == "trainJobs/j/checkpoints/20"


async def test_a_token_of_another_request_is_refused(front: Any, refused: Any, store_images: Any) -> None:
    await store_images(front, [1, 2])
    token = (await answers(front, ask()))[1].page.page_token
    for other in (ask(version=1, page_token=token), ask(page_token="x"), ask(page_token=token, pca=pb.Pca())):
        error = await refused(front.embed.EmbedDataset(other).read())
        assert (error.code, "page_token" in error.fields) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_a_token_that_was_made_by_hand_is_refused(front: Any, refused: Any, store_images: Any) -> None:
    await store_images(front, [1, 2])
    scope = request_scope(ask())
    fields = json.loads(page_tokens.decode_page_token(scope, (await answers(front, ask()))[1].page.page_token, CURSOR))
    for index, value in ((0, 7), (1, "x"), (2, 3), (2, 0), (2, 10**19), (3, None), (4, -1), (4, 3), (4, "2"), (4, 1.5)):
        forged = [value if at == index else field for at, field in enumerate(fields)]
        for inner in (json.dumps(forged, separators=(",", ":")), "abc", "[]", "1"):
            token = page_tokens.encode_page_token(scope, inner)
            error = await refused(front.embed.EmbedDataset(ask(page_token=token)).read())
            assert (error.code, error.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("page_token",)), inner


async def test_a_token_does_not_go_over_to_a_data_set_that_was_made_again(
    front: Any, refused: Any, store_images: Any
) -> None:
    await store_images(front, [1, 2])
    token = (await answers(front, ask()))[1].page.page_token
    await front.store.datasets.delete("shirts")
    await store_images(front, [3, 4])
    error = await refused(front.embed.EmbedDataset(ask(page_token=token)).read())
    assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "DATASET_CHANGED")


async def test_rows_are_of_unit_length_and_half_precision_where_asked_for(front: Any, store_images: Any) -> None:
    await store_images(front, [3, 0, 255])
    half = types_pb2.Tensor.DATA_TYPE_FLOAT16
    (page,) = pages(await answers(front, ask(options=pb.EmbedOptions(l2_normalize=True, data_type=half))))
    assert rows(page).dtype == np.float16
    np.testing.assert_allclose(rows(page), np.array([[3**-0.5] * 3, [0] * 3, [3**-0.5] * 3]), atol=1e-3)


async def test_a_row_that_half_precision_cannot_hold_is_an_error_of_its_own(front: Any, store_images: Any) -> None:
    await store_images(front, [3, 200, None, 5])
    front.embedder.scale = 1000.0
    half = pb.EmbedOptions(data_type=types_pb2.Tensor.DATA_TYPE_FLOAT16)
    found = pages(await answers(front, ask(options=half)))
    errors = [(page.first_row + error.row, error.error.reason) for page in found for error in page.errors]
    assert errors == [(1, "FLOAT16_OVERFLOW"), (2, "DECODE_FAILED")]
    whole = np.concatenate([rows(page) for page in found])
    np.testing.assert_array_equal(whole[:, 0], np.array([3000, np.nan, np.nan, 5000], np.float16))
    again = pages(await answers(front, ask()))
    assert [error.error.reason for page in again for error in page.errors] == ["DECODE_FAILED"]


async def test_principal_components_are_fitted_on_the_readable_images(front: Any, store_images: Any) -> None:
    shades = [0, 10, None, 20, 40]
    await store_images(front, shades)
    opened, fit, *middle, _ = await answers(front, ask(pca=pb.Pca(num_components=1)))
    assert opened.HasField("opened")
    assert (fit.pca.num_components, fit.pca.variance_kept) == (1, pytest.approx(1))
    found = np.concatenate([rows(page) for page in pages(middle)])
    expected = (np.array([0, 10, np.nan, 20, 40]) - 17.5) * 3**0.5
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)
    white = await answers(front, ask(pca=pb.Pca(variance_fraction=0.5, whiten=True)))
    flat = np.concatenate([rows(page) for page in pages(white)])
    assert np.nanstd(flat, ddof=1) == pytest.approx(1, rel=1e-5)


async def test_principal_components_are_fitted_once_and_again_where_the_file_is_damaged(
    front: Any, store_images: Any
) -> None:
    await store_images(front, [0, 10, 20])
    first = await answers(front, ask(pca=pb.Pca(num_components=1)))
    await answers(front, ask(pca=pb.Pca(num_components=1)))
    assert len(front.selector.asked) == 1
    (path,) = front.store.embeddings_dir.glob("*/*/pca-*")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    again = await answers(front, ask(pca=pb.Pca(num_components=1)))
    assert len(front.selector.asked) == 2
    assert pages(again) == pages(first)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"dataset": "shirts"}, {"dataset"}),
        ({"model": "thin"}, {"model"}),
        ({"version": -1}, {"version"}),
        ({"version": 4}, {"version"}),
        ({"options": {"output": 9}}, {"options.output"}),
        ({"options": {"data_type": 9}}, {"options.data_type"}),
        ({"pca": {}}, {"pca"}),
        ({"pca": {"num_components": 0}}, {"pca.num_components"}),
        ({"pca": {"num_components": 3}}, {"pca.num_components"}),
        ({"pca": {"variance_fraction": 0}}, {"pca.variance_fraction"}),
        ({"pca": {"variance_fraction": 1.5}}, {"pca.variance_fraction"}),
        ({"pca": {"variance_fraction": float("nan")}}, {"pca.variance_fraction"}),
        ({"dataset": "", "model": "", "version": -3, "pca": {}}, {"dataset", "model", "version", "pca"}),
    ],
)
async def test_every_field_that_is_wrong_is_named(
    front: Any, refused: Any, store_images: Any, fields: dict[str, Any], names: set[str]
) -> None:
    await store_images(front, [1, 2, None])

    async def call() -> None:
        await answers(front, ask(**fields))

    error = await refused(call())
    assert (error.code, set(error.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, names)


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"dataset": "datasets/none"}, grpc.StatusCode.NOT_FOUND, "DATASET_NOT_FOUND"),
        ({"dataset": "datasets/empty"}, grpc.StatusCode.FAILED_PRECONDITION, "DATASET_EMPTY"),
        ({"model": "backbones/none"}, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
        ({"model": "trainJobs/none"}, grpc.StatusCode.NOT_FOUND, "TRAIN_JOB_NOT_FOUND"),
        ({"options": {"output": 2}}, grpc.StatusCode.FAILED_PRECONDITION, "NO_PROJECTION_HEAD"),
    ],
)
async def test_what_is_not_there_is_said(
    front: Any, refused: Any, store_images: Any, fields: dict[str, Any], code: Any, reason: str
) -> None:
    await store_images(front, [1, 2])
    await front.store.datasets.create("empty")
    error = await refused(front.embed.EmbedDataset(ask(**fields)).read())
    assert (error.code, error.reason) == (code, reason)


async def test_one_readable_image_has_no_components(front: Any, refused: Any, store_images: Any) -> None:
    await store_images(front, [1, None])

    async def call() -> None:
        await answers(front, ask(pca=pb.Pca(variance_fraction=0.9)))

    error = await refused(call())
    assert (error.code, error.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("pca",))


async def test_a_caller_that_goes_away_ends_the_embedding(front: Any, store_images: Any) -> None:
    await store_images(front, list(range(9)))
    front.embedder.gate = asyncio.Event()
    call = front.embed.EmbedDataset(ask())
    assert (await call.read()).HasField("opened")
    async with asyncio.timeout(10):
        assert (await call.read()).progress.total == 9
        call.cancel()
        while front.embedder.running:
            await asyncio.sleep(0.01)
    assert front.embedder.cancelled >= 1


async def test_a_deadline_ends_the_work(front: Any, refused: Any, store_images: Any) -> None:
    await store_images(front, [1, 2, 3])
    front.embedder.gate = asyncio.Event()

    async def call() -> None:
        async for _ in front.embed.EmbedDataset(ask(), timeout=1.0):
            pass

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call()
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(10):
        while front.embedder.running:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("options", [{"embedding_cache_bytes": 1 << 20}])
async def test_embeddings_that_the_cache_can_not_hold_are_refused_at_once(
    front: Any, refused: Any, store_images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyview_server.supervise.embedders.tables.ID_BYTES", 1 << 20)
    await store_images(front, [1])
    call = front.embed.EmbedDataset(ask())
    await call.read()
    error = await refused(call.read())
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "EMBEDDINGS_TOO_LARGE")
    assert "embedding_cache_bytes allows 1,048,576" in error.text
    assert error.retry_after_s == 0


@pytest.mark.parametrize("options", [{"embedding_table_type": "float16"}, {"embedding_table_type": "float32"}])
async def test_tables_are_kept_in_the_number_format_of_the_server(
    front: Any, store_images: Any, options: dict[str, str]
) -> None:
    front.embedder.scale = 1 + 2**-12
    await store_images(front, [9, 7, 5, 3, 1])
    for _ in range(2):
        found = np.concatenate([rows(page) for page in pages(await answers(front, ask()))])
        exact = front.embedder.scale * np.array([[9, 7, 5, 3, 1]] * 3).T
        expected = exact.astype(options["embedding_table_type"]).astype(np.float32)
        np.testing.assert_array_equal(found, expected)
    (table,) = front.store.embeddings_dir.glob("*/*")
    assert array_file.read(table / "segment-00000000").arrays["rows"].dtype == options["embedding_table_type"]
    assert len(front.embedder.calls) == 2, "one for each segment, in the first call"
