"""FindNeighbors and FindDuplicates over a real port; embeddings are shades on a line."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from manyview.v1 import dataset_service_pb2, types_pb2
from manyview.v1 import embed_service_pb2 as pb
from manyview_server.front.embeddings import neighbors as neighbors_module

MODEL = "backbones/thin"
SQRT3 = 3**0.5


def key(name: str) -> dataset_service_pb2.ImageRef:
    return dataset_service_pb2.ImageRef(key=name)


def ask(**fields: Any) -> pb.FindNeighborsRequest:
    defaults = {"dataset": "datasets/shirts", "model": MODEL, "metric": pb.METRIC_EUCLIDEAN}
    return pb.FindNeighborsRequest(**{**defaults, **fields})


def ask_duplicates(distance: float, **fields: Any) -> pb.FindDuplicatesRequest:
    defaults = {"dataset": "datasets/shirts", "model": MODEL, "metric": pb.METRIC_EUCLIDEAN}
    return pb.FindDuplicatesRequest(max_distance=distance, **{**defaults, **fields})


async def answers(call: Any, payload: str) -> list[Any]:
    responses = [response async for response in call]
    kinds = [response.WhichOneof("payload") for response in responses]
    assert (kinds[0], kinds[-1]) == ("opened", "end")
    return [getattr(response, payload) for response in responses if response.HasField(payload)]


def found(answer: pb.QueryNeighbors) -> list[tuple[str, float]]:
    return [(near.image.key, near.distance / SQRT3) for near in answer.neighbors]


async def test_stored_images_have_neighbors_other_than_themselves(front: Any, store_images: Any) -> None:
    await store_images(front, [10, None, 13, 20, 100])
    request = ask(stored=[key("10.png"), key("bad1.png"), key("20.png")], num_neighbors=2)
    first, bad, last = await answers(front.embed.FindNeighbors(request), "neighbors")
    assert found(first) == [("13.png", pytest.approx(3)), ("20.png", pytest.approx(10))]
    assert found(last) == [("13.png", pytest.approx(7)), ("10.png", pytest.approx(10))]
    assert (bad.query, bad.error.reason, len(bad.neighbors)) == (1, "DECODE_FAILED", 0)


async def test_brought_images_have_neighbors_of_any_distance(front: Any, store_images: Any, png: Any) -> None:
    await store_images(front, [10, 13, 20])
    images = [types_pb2.Image(data=png(13)), types_pb2.Image(data=b"junk"), types_pb2.Image(data=png(19))]
    same, bad, last = await answers(front.embed.FindNeighbors(ask(images=images)), "neighbors")
    assert found(same) == [("13.png", 0), ("10.png", pytest.approx(3)), ("20.png", pytest.approx(7))]
    assert found(last)[0] == ("20.png", pytest.approx(1))
    assert bad.error.reason == "FORMAT_NOT_ALLOWED"
    assert [same.query, bad.query, last.query] == [0, 1, 2]


async def test_queries_that_all_are_unreadable_ask_no_selector(front: Any, store_images: Any) -> None:
    await store_images(front, [10, 20])
    (bad,) = await answers(front.embed.FindNeighbors(ask(images=[types_pb2.Image(data=b"x")])), "neighbors")
    assert bad.error.reason == "FORMAT_NOT_ALLOWED"
    assert front.selector.asked == []


REFUSED: list[tuple[Any, set[str]]] = [
    (ask(), {"images"}),
    (ask(images=[types_pb2.Image()], stored=[key("1.png")]), {"images"}),
    (ask(images=[types_pb2.Image()] * 257), {"images"}),
    (ask(stored=[key("1.png")] * 10_001), {"stored"}),
    (ask(stored=[key("1.png"), dataset_service_pb2.ImageRef()]), {"stored[1]"}),
    (ask(stored=[key("1.png")], num_neighbors=-1), {"num_neighbors"}),
    (ask(stored=[key("1.png")], num_neighbors=1001), {"num_neighbors"}),
    (ask(stored=[key("1.png")], num_neighbors=2), {"num_neighbors"}),
    (ask(stored=[key("1.png")] * 5_001, num_neighbors=1_000), {"num_neighbors"}),
    (ask(stored=[key("2.png")], version=1), {"stored[0]"}),
    (ask(stored=[key("1.png")], metric=9, output=9, version=-1, model="x"), {"metric", "output", "version", "model"}),
]


@pytest.mark.parametrize(("request_", "names"), REFUSED)
async def test_every_field_that_is_wrong_is_named(
    front: Any, refused: Any, store_images: Any, request_: pb.FindNeighborsRequest, names: set[str]
) -> None:
    await store_images(front, [1, 2])

    async def call() -> None:
        await answers(front.embed.FindNeighbors(request_), "neighbors")

    error = await refused(call())
    assert (error.code, set(error.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, names)


async def test_an_image_that_is_not_there_and_a_data_set_of_one(front: Any, refused: Any, store_images: Any) -> None:
    await store_images(front, [1])
    error = await refused(front.embed.FindNeighbors(ask(stored=[key("none")])).read())
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND")

    async def call() -> None:
        await answers(front.embed.FindNeighbors(ask(stored=[key("1.png")])), "neighbors")

    error = await refused(call())
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TOO_FEW_IMAGES")


async def test_near_duplicates_come_in_groups_in_the_order_of_the_data_set(front: Any, store_images: Any) -> None:
    await store_images(front, [50, 10, None, 52, 11, 200, 54])
    members = await answers(front.embed.FindDuplicates(ask_duplicates(2.1 * SQRT3)), "members")
    groups = [[(m.image.key, m.distance / SQRT3) for m in answer.members] for answer in members]
    assert groups == [
        [("50.png", 0), ("52.png", pytest.approx(2)), ("54.png", pytest.approx(4))],
        [("10.png", 0), ("11.png", pytest.approx(1))],
    ]
    assert [answer.group for answer in members] == [0, 1]


async def test_a_large_group_comes_in_several_messages(
    front: Any, store_images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors_module, "MEMBERS_AT_ONCE", 2)
    await store_images(front, [1, 2, 3, 4, 5])
    responses = [r async for r in front.embed.FindDuplicates(ask_duplicates(1.1 * SQRT3))]
    parts = [(r.members.group, len(r.members.members)) for r in responses if r.HasField("members")]
    assert parts == [(0, 2), (0, 2), (0, 1)]
    assert (responses[-1].end.num_groups, responses[-1].end.num_images) == (1, 5)


async def test_images_that_all_differ_are_no_group(front: Any, store_images: Any) -> None:
    await store_images(front, [1, 9])
    assert await answers(front.embed.FindDuplicates(ask_duplicates(0)), "members") == []


@pytest.mark.parametrize("distance", [-1, float("nan"), float("inf")])
async def test_a_distance_that_is_none_is_refused(front: Any, refused: Any, store_images: Any, distance: float) -> None:
    await store_images(front, [1, 9])
    error = await refused(front.embed.FindDuplicates(ask_duplicates(distance)).read())
    assert error.fields == ("max_distance",)
