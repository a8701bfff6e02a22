"""Selecting: the request, the answer, and what a broken stream does to them."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest

import manyview
from manyview._results import selection
from manyview.testing import FakeServer
from manyview.v1 import dataset_service_pb2
from manyview.v1 import embed_service_pb2 as pb

IMAGES = [b"one", b"two", b"three", b"four", b"five"]
MODEL = "backbones/resnet18"


@pytest.fixture(autouse=True)
def dataset(client: manyview.Client) -> manyview.Dataset:
    return client.upload([(data, f"class{row % 2}") for row, data in enumerate(IMAGES)], "pets")


def only(server: FakeServer, rpc: str) -> Any:
    (request,) = server.requests(rpc)
    return request


def test_a_selection_is_a_sequence_of_images_with_scores(client: manyview.Client) -> None:
    found = client.select("pets", 3, model=MODEL, seed=7)
    assert (found.dataset, found.strategy, found.checkpoint, found.version) == ("datasets/pets", "coreset", MODEL, 5)
    assert found.keys == ("00000000", "00000001", "00000002")
    assert [sample.score for sample in found] == [None, 1.0, 2.0]
    assert (found[1].image.label, found[1].image_id, len(found[1:])) == ("class1", found[1].image.image_id, 2)
    assert len(found) == 3


def test_what_was_selected_can_be_chosen_looked_for_and_read(client: manyview.Client, server: FakeServer) -> None:
    found = client.select("pets", 2, model=MODEL)
    more = client.select("pets", 2, model=MODEL, chosen=[*found, "00000004"])
    assert more.keys == ("00000002", "00000003")
    refs = server.requests("SelectSamples")[1].chosen
    assert [ref.WhichOneof("image") for ref in refs] == ["image_id", "image_id", "key"]
    assert client.read_image("pets", found[1]) == b"two"  # type: ignore[arg-type]
    answers = client.neighbors("pets", found, model=MODEL, num_neighbors=1)
    assert [answer.query for answer in answers] == list(found.keys)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"count": 2, "model": MODEL, "seed": 3}, {"coreset": {"seed": 3}}),
        ({"count": 2, "strategy": "random"}, {"random": {}, "model": "", "output": 0, "metric": 0}),
        (
            {"model": MODEL, "strategy": "minimum_distance", "distance": 0.5, "metric": "euclidean"},
            {"minimum_distance": {"distance": 0.5}, "metric": pb.METRIC_EUCLIDEAN, "count": 0},
        ),
        (
            {"count": 1, "model": MODEL, "strategy": "typicality", "num_neighbors": 5, "output": "projection"},
            {"typicality": {"num_neighbors": 5}, "output": pb.EmbedOptions.OUTPUT_PROJECTION},
        ),
        (
            {"count": 1, "model": MODEL, "strategy": "similarity", "like": [b"x"], "version": 3},
            {"similarity": {"images": [{"data": b"x"}]}, "version": 3},
        ),
        (
            {"count": 1, "model": MODEL, "strategy": "similarity", "like_keys": ["00000001"]},
            {"similarity": {"stored": [{"key": "00000001"}]}},
        ),
        ({"model": MODEL, "balance": {"class0": 2}}, {"balance": {"counts": {"class0": 2}}, "coreset": {}}),
        (
            {"count": 2, "model": MODEL, "balance": "equal"},
            {"balance": {"share": pb.ClassBalance.SHARE_EQUAL}, "coreset": {}},
        ),
    ],
)
def test_the_request_says_what_was_asked_for_and_nothing_else(
    client: manyview.Client, server: FakeServer, arguments: dict[str, Any], expected: dict[str, Any]
) -> None:
    client.select("pets", **arguments)
    defaults = {"dataset": "datasets/pets", "model": MODEL, "count": arguments.get("count", 0)}
    assert only(server, "SelectSamples") == pb.SelectSamplesRequest(**{**defaults, **expected})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"strategy": "best"}, "strategy must be one of random, coreset"),
        (
            {"strategy": "typicality", "seed": 1},
            "seed is not a parameter of the strategy typicality, which",
        ),
        (
            {"strategy": "coreset", "distance": 1.0},
            "is not a parameter of the strategy coreset, which takes seed",
        ),
        ({"strategy": "similarity"}, "set exactly one of images and keys"),
        ({"strategy": "similarity", "like": [b"a"], "like_keys": ["b"]}, "set exactly one of images and keys"),
        ({"metric": "manhattan"}, "metric must be one of cosine, euclidean, not 'manhattan'"),
        ({"output": "logits"}, "output must be one of backbone, projection"),
        ({"balance": "fair"}, "balance must be one of equal, proportional, not 'fair'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_it_is_sent(
    client: manyview.Client, server: FakeServer, arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        client.select("pets", 1, model=MODEL, **arguments)
    assert server.requests("SelectSamples") == []


def test_queries_that_do_not_fit_into_a_message_are_refused(
    client: manyview.Client, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="do not fit into a message of 37,748,736: use fewer"):
        client.select("pets", 1, model=MODEL, strategy="similarity", like=[bytes([n]) * 20_000_000 for n in range(2)])


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_selection_that_breaks_is_made_again_and_holds_each_image_once(
    client: manyview.Client, server: FakeServer, after: int
) -> None:
    server.fail("SelectSamples", "UNAVAILABLE", after=after)
    assert client.select("pets", 3, model=MODEL).keys == ("00000000", "00000001", "00000002")
    server.fail("FindNeighbors", "UNAVAILABLE", after=after)
    assert len(client.neighbors("pets", [b"one", b"two", b"x"], model=MODEL)) == 3
    server.fail("FindDuplicates", "UNAVAILABLE", after=after)
    (group,) = client.duplicates("pets", model=MODEL, max_distance=10)
    assert len(group) == 5


def test_a_refusal_is_raised_with_its_reason(client: manyview.Client) -> None:
    with pytest.raises(manyview.InvalidArgument, match="there are 5 images"):
        client.select("pets", 6, model=MODEL)
    with pytest.raises(manyview.NotFound):
        client.neighbors("pets", keys=["elsewhere"], model=MODEL)


@pytest.mark.parametrize("brings", ["nothing", "progress"])
def test_a_stream_that_opens_and_fails_again_and_again_is_given_up(server: FakeServer, brings: str) -> None:
    def failing(request: Any, context: Any) -> Any:
        yield pb.SelectSamplesResponse(opened=pb.EmbeddingsOpened(checkpoint=MODEL, version=5))
        if brings == "progress":  # the same as before
            yield pb.SelectSamplesResponse(progress=pb.EmbeddingsProgress(done=1, total=5))
        context.abort(grpc.StatusCode.UNAVAILABLE, "the disk is full")

    server.reply("SelectSamples", *[failing] * 100)
    deadlines = manyview.Deadlines(idle_s=2, reconnect_s=1)
    with (
        manyview.Client(server.target, deadlines=deadlines) as client,
        pytest.raises(manyview.Unavailable, match="the disk is full"),
    ):
        client.select("pets", 1, model=MODEL)
    assert len(server.requests("SelectSamples")) > 2


def test_a_stream_that_goes_on_may_fail_for_longer(server: FakeServer) -> None:
    done = 0

    def slow(request: Any, context: Any) -> Any:
        nonlocal done
        done += 1
        yield pb.SelectSamplesResponse(opened=pb.EmbeddingsOpened(checkpoint=MODEL, version=5))
        yield pb.SelectSamplesResponse(progress=pb.EmbeddingsProgress(done=done, total=5))
        if done < 9:
            time.sleep(0.15)
            context.abort(grpc.StatusCode.UNAVAILABLE, "again")
        yield pb.SelectSamplesResponse(end=pb.SelectSamplesEnd(num_samples=0))

    server.reply("SelectSamples", *[slow] * 9)
    deadlines = manyview.Deadlines(idle_s=2, reconnect_s=0.6)
    with manyview.Client(server.target, deadlines=deadlines) as client:
        assert len(client.select("pets", 1, model=MODEL)) == 0
    assert done == 9


def test_a_time_limit_holds_whatever_the_server_does(client: manyview.Client, server: FakeServer) -> None:
    def endless(request: Any, context: Any) -> Any:
        while context.is_active():
            yield pb.SelectSamplesResponse(progress=pb.EmbeddingsProgress(done=1, total=5))
            time.sleep(0.05)

    server.reply("SelectSamples", endless)
    reported = []
    with pytest.raises(manyview.DeadlineExceeded, match=r"not done within 0\.4 s"):
        client.select(
            "pets", 1, model=MODEL, timeout_s=0.4, progress=lambda done, total: reported.append((done, total))
        )
    assert set(reported) == {(1, 5)}


def test_a_number_that_is_too_large_is_named(client: manyview.Client) -> None:
    with pytest.raises(ValueError, match="num_neighbors must be a whole number of at most 2,147,483,647, not 3"):
        client.neighbors("pets", [b"one"], model=MODEL, num_neighbors=3_000_000_000)
    with pytest.raises(ValueError, match="seed must be a whole number of at most 9,223,372,036,854,775,807, not 1e"):
        client.select("pets", 1, model=MODEL, seed=1e30)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="version must be a whole number"):
        client.embed_dataset("pets", MODEL, version=2**63)


def test_an_example_that_is_too_large_costs_only_itself(client: manyview.Client, server: FakeServer) -> None:
    server.state.max_image_bytes = 10
    too_large = manyview.ImageError(reason="IMAGE_TOO_LARGE", message="it has 11 bytes, at most 10 are allowed")
    with manyview.Client(server.target) as fresh:
        found = fresh.select("pets", 1, model=MODEL, strategy="similarity", like=[b"x" * 11, b"one"])
        assert (len(found), found.errors) == (1, {"00000000": too_large})
        assert repr(found).endswith(", 1 error>")
        with pytest.raises(ValueError, match="like: 00000000: IMAGE_TOO_LARGE it has 11 bytes"):
            fresh.select("pets", 1, model=MODEL, strategy="similarity", like=[b"x" * 11])
    assert [image.data for image in only(server, "SelectSamples").similarity.images] == [b"one"]


def unembeddable(number: int, field: str = "images") -> manyview.Violation:
    description = "has no embedding: DECODE_FAILED: the file\nis cut off: here"
    return manyview.Violation(f"similarity.{field}[{number}]", description, "DECODE_FAILED")


CUT_OFF = manyview.ImageError(reason="DECODE_FAILED", message="the file\nis cut off: here")


def test_an_example_that_the_server_cannot_embed_costs_only_itself(client: manyview.Client, server: FakeServer) -> None:
    server.fail("SelectSamples", "INVALID_ARGUMENT", violations=[unembeddable(1)])
    found = client.select("pets", 1, model=MODEL, strategy="similarity", like=[b"a", b"bad", b"c"])
    assert (len(found), found.errors) == (1, {"00000001": CUT_OFF})
    assert [image.data for image in server.requests("SelectSamples")[-1].similarity.images] == [b"a", b"c"]


def test_the_error_of_a_server_that_gives_no_reasons_is_shown_whole(
    client: manyview.Client, server: FakeServer
) -> None:
    words = {"similarity.images[1]": "has no embedding: DECODE_FAILED: cut off"}
    server.fail("SelectSamples", "INVALID_ARGUMENT", violations=words)
    with pytest.raises(manyview.InvalidArgument, match="has no embedding: DECODE_FAILED: cut off"):
        client.select("pets", 1, model=MODEL, strategy="similarity", like=[b"a", b"bad", b"c"])


def test_an_unreadable_image_of_the_data_set_costs_only_itself(client: manyview.Client, server: FakeServer) -> None:
    server.fail("SelectSamples", "INVALID_ARGUMENT", violations=[unembeddable(1, "stored")])
    found = client.select("pets", 1, model=MODEL, strategy="similarity", like=client.images("pets"))
    assert (len(found), found.errors) == (1, {"00000001": CUT_OFF})
    sent = server.requests("SelectSamples")[-1].similarity.stored
    assert len(sent) == len(IMAGES) - 1


def test_more_bad_examples_than_an_answer_can_name_are_left_out_in_turn(
    client: manyview.Client, server: FakeServer
) -> None:
    rest = manyview.Violation("", "and 2 more violations")
    server.fail("SelectSamples", "INVALID_ARGUMENT", violations=[unembeddable(0), unembeddable(2), rest])
    server.fail("SelectSamples", "INVALID_ARGUMENT", violations=[unembeddable(0), unembeddable(2)])
    found = client.select("pets", 1, model=MODEL, strategy="similarity", like=[b"0", b"1", b"2", b"3", b"4"])
    assert sorted(found.errors) == ["00000000", "00000001", "00000002", "00000004"]
    assert [image.data for image in server.requests("SelectSamples")[-1].similarity.images] == [b"3"]


def test_if_no_example_is_left_the_error_names_them(client: manyview.Client, server: FakeServer) -> None:
    every = [unembeddable(number) for number in range(5)]
    server.fail("SelectSamples", "INVALID_ARGUMENT", reason="FIELD_INVALID", violations=every)
    with pytest.raises(manyview.InvalidArgument) as raised:
        client.select("pets", 1, model=MODEL, strategy="similarity", like=[b"%d" % number for number in range(5)])
    reason = "DECODE_FAILED the file\nis cut off: here"
    named = "; ".join(f"0000000{number}: {reason}" for number in range(3))
    assert str(raised.value) == f"like: {named}; and 2 more images [FIELD_INVALID]"
    assert raised.value.violations == ()


def test_a_request_that_is_also_wrong_otherwise_is_refused(client: manyview.Client, server: FakeServer) -> None:
    wrong = manyview.Violation("count", "7 is more than the 5 images")
    server.fail("SelectSamples", "INVALID_ARGUMENT", violations=[unembeddable(0), wrong])
    with pytest.raises(manyview.InvalidArgument) as raised:
        client.select("pets", 1, model=MODEL, strategy="similarity", like=[b"bad", b"good"])
    assert raised.value.violations == (unembeddable(0), wrong)


def test_the_strategies_and_their_parameters_are_those_of_the_contract() -> None:
    fields = pb.SelectSamplesRequest.DESCRIPTOR.oneofs_by_name["strategy"].fields
    assert [field.name for field in fields] == list(selection.PARAMETERS)
    parameters: dict[str, set[str]] = dict(selection.PARAMETERS.items())
    for field in fields:
        assert field.message_type is not None
        named = {name for name in field.message_type.fields_by_name if name not in ("images", "stored")}
        assert parameters[field.name] - {"like", "like_keys"} == named
    assert dataset_service_pb2.ImageRef.DESCRIPTOR.oneofs_by_name["image"]
