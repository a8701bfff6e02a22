"""Neighbors and duplicates: the queries, the calls that they are spread over, and the answers."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest

import manyview
from manyview._results import neighbors
from manyview.testing import FakeServer
from manyview.v1 import embed_service_pb2 as pb

IMAGES = [b"one", b"two", b"three", b"four", b"five"]
MODEL = "backbones/resnet18"


@pytest.fixture(autouse=True)
def dataset(client: manyview.Client) -> manyview.Dataset:
    return client.upload([(data, f"class{row % 2}") for row, data in enumerate(IMAGES)], "pets")


def test_neighbors_come_for_each_query_in_its_place(client: manyview.Client) -> None:
    same, refused, other = client.neighbors("pets", [b"three", b"", b"new"], model=MODEL, num_neighbors=2)
    assert (same[0].key, same[0].distance, len(same), same.checkpoint) == ("00000002", 0.0, 2, MODEL)
    assert refused.error is not None
    assert (refused.error.reason, len(refused)) == ("IMAGE_EMPTY", 0)
    assert [other.query, len(other.neighbors)] == ["00000002", 2]
    (by_key,) = client.neighbors("pets", keys=["00000002"], model=MODEL, num_neighbors=4)
    assert "00000002" not in [near.key for near in by_key]
    (by_value,) = client.neighbors("pets", [list(client.images("pets"))[2]], model=MODEL, num_neighbors=4)
    assert by_value == by_key


def test_many_queries_go_in_several_calls_to_the_same_checkpoint(
    client: manyview.Client, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.train("pets", job_id="mine")
    queries = [b"%d" % number for number in range(300)]
    found = client.neighbors("pets", queries, model="mine", num_neighbors=1)
    assert [answer.query for answer in found] == [f"{number:08}" for number in range(300)]
    requests = server.requests("FindNeighbors")
    assert [len(request.images) for request in requests] == [256, 44]
    assert [request.model for request in requests] == ["trainJobs/mine", "trainJobs/mine/checkpoints/0"]
    assert [request.version for request in requests] == [0, 5], "images that come in between are not searched"
    monkeypatch.setattr(neighbors, "_MAX_STORED_QUERIES", 2)
    keys = [f"{number:08}" for number in range(5)]
    by_key = client.neighbors("pets", keys=keys, model=MODEL, num_neighbors=1)
    assert [answer.query for answer in by_key] == keys
    assert [len(request.stored) for request in server.requests("FindNeighbors")[2:]] == [2, 2, 1]
    monkeypatch.setattr(neighbors, "_MAX_NEIGHBORS", 3)
    assert len(client.neighbors("pets", keys=keys, model=MODEL, num_neighbors=3)) == 5
    assert [len(request.stored) for request in server.requests("FindNeighbors")[5:]] == [1] * 5


def test_a_time_limit_is_of_all_calls_together(
    client: manyview.Client, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(request: Any, context: Any) -> Any:
        time.sleep(0.3)
        yield pb.FindNeighborsResponse(end=pb.FindNeighborsEnd(num_queries=1))

    server.reply("FindNeighbors", *[slow] * 3)
    monkeypatch.setattr(neighbors, "_MAX_STORED_QUERIES", 1)
    with pytest.raises(manyview.DeadlineExceeded, match=r"not done within 0\.5 s"):
        client.neighbors("pets", keys=["00000000", "00000001", "00000002"], model=MODEL, timeout_s=0.5)
    assert len(server.requests("FindNeighbors")) == 2


def test_images_of_a_data_set_come_in_any_form(client: manyview.Client, server: FakeServer) -> None:
    """They may be listed one by one, be a single one, or be a part of another answer."""
    by_key = client.neighbors("pets", keys=[f"{number:08}" for number in range(5)], model=MODEL, num_neighbors=1)
    assert client.neighbors("pets", client.images("pets"), model=MODEL, num_neighbors=1) == by_key
    one = next(iter(client.images("pets")))
    assert client.neighbors("pets", one, model=MODEL, num_neighbors=1) == by_key[:1]
    found = client.neighbors("pets", keys=["00000000"], model=MODEL, num_neighbors=2)[0]
    for like in (client.images("pets"), one, found, found[0]):
        client.select("pets", 1, model=MODEL, strategy="similarity", like=like)
    asked = [request.similarity for request in server.requests("SelectSamples")]
    assert [(len(request.stored), len(request.images)) for request in asked] == [(5, 0), (1, 0), (2, 0), (1, 0)]
    with pytest.raises(ValueError, match="keys must name at least one image"):
        client.neighbors("pets", keys=[], model=MODEL)


def test_queries_are_read_as_they_are_sent(client: manyview.Client, server: FakeServer) -> None:
    read = []

    def queries() -> Any:
        for number in range(600):
            read.append(number)
            yield b"%d" % number

    def refusing(request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")

    server.reply("FindNeighbors", refusing)
    with pytest.raises(manyview.InvalidArgument):
        client.neighbors("pets", queries(), model=MODEL)
    assert len(read) == 257
    read.clear()
    with pytest.raises(ValueError, match="like: there are more than 256 images"):
        client.select("pets", 1, model=MODEL, strategy="similarity", like=queries())
    assert len(read) == 257


def test_an_image_too_large_to_send_is_an_error_of_its_query(client: manyview.Client, server: FakeServer) -> None:
    server.state.max_image_bytes = 10
    with manyview.Client(server.target) as fresh:
        large, small = fresh.neighbors("pets", [b"x" * 11, b"one"], model=MODEL, num_neighbors=1)
    assert large.error is not None
    assert (large.error.reason, small.error) == ("IMAGE_TOO_LARGE", None)


def test_a_single_image_a_generator_and_an_array_are_queries_too(client: manyview.Client) -> None:
    import numpy as np

    assert len(client.neighbors("pets", b"one", model=MODEL)) == 1
    assert len(client.neighbors("pets", (data for data in IMAGES[:2]), model=MODEL)) == 2
    assert len(client.neighbors("pets", np.zeros((4, 4, 3), np.uint8), model=MODEL)) == 1
    with pytest.raises(TypeError, match="keys must be a list of keys, not the string 'a'"):
        client.neighbors("pets", keys="a", model=MODEL)


def test_duplicates_come_in_groups(client: manyview.Client, server: FakeServer) -> None:
    assert client.duplicates("pets", model=MODEL, max_distance=0) == []
    (group,) = client.duplicates("pets", model=MODEL, max_distance=9)
    assert (group[0].key, group[0].distance, len(group), group.checkpoint) == ("00000000", 0.0, 5, MODEL)
    assert server.requests("FindDuplicates")[1].max_distance == 9
