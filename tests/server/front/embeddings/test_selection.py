"""SelectSamples over a real port: embeddings are shades on a line, so that every choice can be made by hand."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from manyview.v1 import dataset_service_pb2, types_pb2
from manyview.v1 import embed_service_pb2 as pb
from manyview_server.messages.selection import TableDamaged
from manyview_server.store.images import shard_writers
from manyview_server.store.images.shard_writers import MAX_SHARD_IMAGES
from manyview_server.store.images.snapshots import SnapshotRows

MODEL = "backbones/thin"
EUCLIDEAN = pb.METRIC_EUCLIDEAN
SQRT3 = 3**0.5


def key(name: str) -> dataset_service_pb2.ImageRef:
    return dataset_service_pb2.ImageRef(key=name)


def ask(strategy: str = "coreset", count: int = 2, given: dict[str, Any] | None = None, **fields: Any) -> Any:
    defaults: dict[str, Any] = {} if strategy == "random" else {"model": MODEL, "metric": EUCLIDEAN}
    defaults |= {"dataset": "datasets/shirts", "count": count}
    request = pb.SelectSamplesRequest(**{**defaults, **fields})
    message = getattr(request, strategy)
    message.SetInParent()
    message.MergeFrom(type(message)(**(given or {})))
    return request


async def selected(front: Any, request: pb.SelectSamplesRequest) -> list[pb.Sample]:
    responses = [response async for response in front.embed.SelectSamples(request)]
    kinds = [response.WhichOneof("payload") for response in responses]
    assert (kinds[0], kinds[-1]) == ("opened", "end")
    samples = [sample for response in responses for sample in response.samples.samples]
    assert responses[-1].end.num_samples == len(samples)
    return samples


async def keys(front: Any, request: pb.SelectSamplesRequest) -> list[str]:
    return [sample.image.key for sample in await selected(front, request)]


async def test_a_coreset_takes_the_farthest_from_what_is_chosen_and_says_how_far_it_was(
    front: Any, store_images: Any
) -> None:
    await store_images(front, [10, 11, None, 50, 100, 90])
    samples = await selected(front, ask(count=3, chosen=[key("10.png")]))
    assert [sample.image.key for sample in samples] == ["100.png", "50.png", "90.png"]
    assert [sample.score for sample in samples] == pytest.approx([90 * SQRT3, 40 * SQRT3, 10 * SQRT3])
    assert samples[0].image.status == dataset_service_pb2.StoredImage.STATUS_STORED


async def test_the_first_of_a_coreset_has_no_score_and_comes_from_the_seed(front: Any, store_images: Any) -> None:
    await store_images(front, list(range(10)))
    firsts = set()
    for seed in range(8):
        (first,) = await selected(front, ask(count=1, given={"seed": seed}))
        assert not first.HasField("score")
        firsts.add(first.image.key)
        assert await keys(front, ask(count=1, given={"seed": seed})) == [first.image.key]
    assert len(firsts) > 2


async def test_minimum_distance_stops_by_itself_or_at_a_count(front: Any, store_images: Any) -> None:
    await store_images(front, [0, 10, 20, 30, 100])
    far = {"distance": 15 * SQRT3}
    assert await keys(front, ask("minimum_distance", 0, far, chosen=[key("0.png")])) == ["100.png", "30.png"]
    assert await keys(front, ask("minimum_distance", 1, far, chosen=[key("0.png")])) == ["100.png"]
    assert await keys(front, ask("minimum_distance", 0, {"distance": 500.0}, chosen=[key("0.png")])) == []


async def test_typical_images_are_in_the_midst_of_others(front: Any, store_images: Any) -> None:
    await store_images(front, [0, 50, 51, 52, 100, 255])
    samples = await selected(front, ask("typicality", 2, {"num_neighbors": 2}))
    assert [sample.image.key for sample in samples] == ["51.png", "100.png"], "50 and 52 are its neighborhood"
    assert samples[0].score == pytest.approx(1 / SQRT3, rel=1e-5)


async def test_similar_images_are_near_to_brought_or_stored_ones_which_are_not_selected(
    front: Any, store_images: Any, png: Any
) -> None:
    await store_images(front, [10, 20, None, 35, 60])
    brought = {"images": [types_pb2.Image(data=png(33))]}
    samples = await selected(front, ask("similarity", 2, brought))
    assert [(sample.image.key, sample.score) for sample in samples] == [
        ("35.png", pytest.approx(2 * SQRT3)),
        ("20.png", pytest.approx(13 * SQRT3)),
    ]
    stored = {"stored": [key("35.png"), key("60.png")]}
    assert await keys(front, ask("similarity", 2, stored)) == ["20.png", "10.png"]
    assert await keys(front, ask("similarity", 1, stored, chosen=[key("20.png")])) == ["10.png"]


async def test_random_needs_no_embeddings(front: Any, store_images: Any) -> None:
    await store_images(front, [1, 2, 3, 4, 5, 6])
    all_of_them = await selected(front, ask("random", 6, {"seed": 4}))
    assert sorted(sample.image.key for sample in all_of_them) == [f"{shade}.png" for shade in range(1, 7)]
    assert not any(sample.HasField("score") for sample in all_of_them)
    some = await keys(front, ask("random", 3, {"seed": 4}))
    assert some == [sample.image.key for sample in all_of_them[:3]]
    left = await keys(front, ask("random", 3, {"seed": 4}, chosen=[key(name) for name in some]))
    assert sorted([*some, *left]) == sorted(sample.image.key for sample in all_of_them)
    assert front.embedder.calls == []


async def test_random_leaves_out_what_is_known_to_be_unreadable(front: Any, refused: Any, store_images: Any) -> None:
    await store_images(front, [1, 2, None])
    uid = (await front.store.datasets.get("shirts")).uid
    (bad,) = await front.store.datasets.images_at(uid, [2])
    await front.store.datasets.mark_unreadable(uid, bad.image_id, "DECODE_FAILED", "torn")
    assert sorted(await keys(front, ask("random", 2))) == ["1.png", "2.png"]
    error = await refused(front.embed.SelectSamples(ask("random", 3)).read())
    assert (error.fields, "the 2 readable images" in error.text) == (("count",), True)


async def test_cosine_is_the_default_and_sees_directions_alone(front: Any, store_images: Any) -> None:
    await store_images(front, [1, 5, 9])
    samples = await selected(front, ask(count=2, chosen=[key("1.png")], metric=pb.METRIC_UNSPECIFIED))
    assert [(sample.image.key, sample.score) for sample in samples] == [("5.png", 0), ("9.png", 0)]


@pytest.mark.parametrize("shard_images", [MAX_SHARD_IMAGES, 2])
async def test_classes_get_their_numbers_and_take_turns(
    front: Any, store_images: Any, monkeypatch: pytest.MonkeyPatch, shard_images: int
) -> None:
    monkeypatch.setattr(shard_writers, "MAX_SHARD_IMAGES", shard_images)
    await store_images(front, [1, 2, 3, 4, 100, 200, 7], labels=["a", "a", "a", "a", "b", "b", ""])
    given = ask(count=0, balance={"counts": {"a": 2, "b": 1}}, chosen=[key("1.png")])
    assert await keys(front, given) == ["4.png", "200.png", "2.png"]
    equal = ask(count=4, balance={"share": pb.ClassBalance.SHARE_EQUAL}, chosen=[key("1.png")])
    assert await keys(front, equal) == ["4.png", "200.png", "2.png", "100.png"]
    shares = ask(count=3, balance={"share": pb.ClassBalance.SHARE_PROPORTIONAL}, chosen=[key("1.png")])
    labels = [sample.image.label for sample in await selected(front, shares)]
    assert sorted(labels) == ["a", "a", "b"]
    drawn = ask("random", 4, balance={"share": pb.ClassBalance.SHARE_EQUAL})
    assert sorted(sample.image.label for sample in await selected(front, drawn)) == ["a", "a", "b", "b"]
    rows = SnapshotRows.received("", front.selector.asked[-1].blobs[5:])
    assert len(rows.loose) == (1 if shard_images == 2 else 7), "the others are in index files"


async def test_a_version_is_selected_from_whatever_came_later(front: Any, store_images: Any) -> None:
    await store_images(front, [1, 2, 3])
    await store_images(front, [200])
    assert await keys(front, ask(count=1, version=3, chosen=[key("1.png")])) == ["3.png"]
    assert await keys(front, ask(count=1, chosen=[key("1.png")])) == ["200.png"]


REFUSED: list[tuple[Any, set[str], str]] = [
    (ask(count=0), {"count"}, "at least 1"),
    (ask(count=-1), {"count"}, "-1 is less than 0"),
    (ask(count=4), {"count"}, "the 3 readable images that are not chosen yet"),
    (ask(count=3, chosen=[key("1.png")]), {"count"}, "the 2 readable images that are not chosen yet"),
    (ask(given={"seed": -1}), {"coreset.seed"}, "-1 is less than 0"),
    (ask("minimum_distance", 0), {"minimum_distance.distance"}, "0.0 must be finite and above 0"),
    (ask("minimum_distance", 0, {"distance": float("inf")}), {"minimum_distance.distance"}, "finite"),
    (ask("typicality", 1, {"num_neighbors": 1001}), {"typicality.num_neighbors"}, "from 1 to 1,000"),
    (ask("typicality", 1, {"num_neighbors": -1}), {"typicality.num_neighbors"}, "from 1 to 1,000"),
    (ask("similarity", 1), {"similarity.images"}, "neither images nor stored"),
    (
        ask("similarity", 1, {"stored": [key("1.png")], "images": [types_pb2.Image()]}),
        {"similarity.images"},
        "both set",
    ),
    (ask("similarity", 1, {"images": [types_pb2.Image()]}), {"similarity.images[0]"}, "IMAGE_EMPTY"),
    (ask("similarity", 1, {"stored": [key("bad1.png")]}), {"similarity.stored[0]"}, "DECODE_FAILED"),
    (ask("similarity", 3, {"stored": [key("1.png")]}), {"count"}, "the 2 readable images"),
    (ask("similarity", 1, {"stored": [key("")]}), {"similarity.stored[0]"}, "names no image"),
    (ask("random", 1, model=MODEL), {"model"}, "random uses no embeddings"),
    (ask("random", 1, metric=1, output=1), {"metric", "output"}, "random uses no embeddings"),
    (ask(metric=7), {"metric"}, "7 is not a value"),
    (ask(output=7), {"output"}, "7 is not a value"),
    (ask(version=5), {"version"}, "the data set holds 4 images"),
    (ask(version=1, count=1, chosen=[key("3.png")]), {"chosen[0]"}, "'3.png' is image 4, beyond version 1"),
    (ask(chosen=[dataset_service_pb2.ImageRef(image_id="x")]), {"chosen[0].image_id"}, "16 digits"),
    (ask(balance={}), {"balance"}, "neither share nor counts"),
    (ask(balance={"share": 9}), {"balance.share"}, "9 is not a value"),
    (ask(count=0, balance={"share": 1, "counts": {"a": 1}}), {"balance"}, "both set"),
    (ask(count=1, balance={"counts": {"a": 1}}), {"count"}, "must be 0"),
    (ask(count=0, balance={"counts": {"a": 0}}), {"balance.counts['a']"}, "0 is less than 1"),
    (ask(count=0, balance={"counts": {"z": 1}}), {"balance.counts['z']"}, "labels are 'a', 'b'"),
    (ask(count=0, balance={"counts": {"a": 3}}), {"balance.counts['a']"}, "the 2 such images"),
    (ask(count=4, balance={"share": 1}), {"count"}, "the 3 labelled, readable images"),
    (ask("minimum_distance", 0, {"distance": 1.0}, balance={"share": 1}), {"count"}, "at least 1"),
    (pb.SelectSamplesRequest(dataset="datasets/shirts", model=MODEL, count=1), {"strategy"}, "is not set"),
    (
        ask(count=-1, given={"seed": -1}, metric=9, dataset="x", model="y", version=-1),
        {"count", "coreset.seed", "metric", "dataset", "model", "version"},
        "-1",
    ),
]


@pytest.mark.parametrize(("request_", "names", "text"), REFUSED)
async def test_every_field_that_is_wrong_is_named_with_what_is_allowed(
    front: Any, refused: Any, store_images: Any, request_: pb.SelectSamplesRequest, names: set[str], text: str
) -> None:
    await store_images(front, [1, None, 2, 3], labels=["a", "b", "a", "b"])

    async def call() -> None:
        async for _ in front.embed.SelectSamples(request_):
            pass

    error = await refused(call())
    assert (error.code, set(error.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, names)
    assert text in error.text


async def test_queries_without_an_embedding_are_refused_with_their_reasons_for_programs(
    front: Any, refused: Any, store_images: Any, png: Any
) -> None:
    await store_images(front, [1, None])
    sent = [types_pb2.Image(data=data) for data in (b"", png(1), b"no image")]
    error = await refused(selected(front, ask("similarity", 1, {"images": sent})))
    assert error.fields == ("similarity.images[0]", "similarity.images[2]")
    assert error.field_reasons == ("IMAGE_EMPTY", "FORMAT_NOT_ALLOWED")
    stored = {"stored": [key("1.png"), key("bad1.png")]}
    error = await refused(selected(front, ask("similarity", 1, stored)))
    assert (error.fields, error.field_reasons) == (("similarity.stored[1]",), ("DECODE_FAILED",))


async def test_what_can_be_known_without_embeddings_is_refused_without_making_any(
    front: Any, refused: Any, store_images: Any
) -> None:
    await store_images(front, [1, 2], labels=["a", "b"])
    for request in (ask(count=3), ask(count=0, balance={"counts": {"z": 1}}), ask(chosen=[key("none")])):
        await refused(front.embed.SelectSamples(request).read())
    assert front.embedder.calls == []


async def test_more_than_fits_into_memory_is_refused_without_making_any(
    front: Any, refused: Any, store_images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store_images(front, [1, 2])

    def too_large(*_: object, **__: object) -> None:
        raise front.too_large

    from manyview_server.errors import ResourceExhausted

    front.too_large = ResourceExhausted("SELECTION_TOO_LARGE", "too many")
    monkeypatch.setattr(front.selector, "source", too_large)
    error = await refused(front.embed.SelectSamples(ask()).read())
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SELECTION_TOO_LARGE")
    assert front.embedder.calls == []


async def test_a_table_that_a_selector_finds_damaged_is_made_again(front: Any, store_images: Any) -> None:
    await store_images(front, [1, 2, 3])
    await keys(front, ask())
    front.embedder.calls.clear()
    front.selector.answers.append(TableDamaged(segment=0))
    assert len(await keys(front, ask())) == 2
    assert len(front.embedder.calls) == 1


async def test_damage_on_the_disk_is_noticed_and_mended(front: Any, store_images: Any) -> None:
    await store_images(front, [1, 2, 3])
    before = await keys(front, ask())
    (path,) = front.store.embeddings_dir.glob("*/*/segment-*")
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:40], b"", whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:]):
        path.write_bytes(damaged)
        assert await keys(front, ask()) == before
    assert path.read_bytes() == whole


async def test_a_caller_that_goes_away_ends_the_selection(front: Any, store_images: Any) -> None:
    await store_images(front, [1, 2, 3])
    front.selector.gate = asyncio.Event()
    call = front.embed.SelectSamples(ask())
    async with asyncio.timeout(10):
        while not front.selector.asked:
            await asyncio.sleep(0.01)
        call.cancel()
        while not front.selector.cancelled:
            await asyncio.sleep(0.01)


async def stages_of(front: Any, call: Any) -> list[str]:
    """The stages that a caller hears of. Each gate opens once its stage was heard of."""
    stages: list[str] = []
    async with asyncio.timeout(20):
        async for response in call:
            if not response.HasField("progress"):
                continue
            stages.append(pb.EmbeddingsProgress.Stage.Name(response.progress.stage).removeprefix("STAGE_"))
            if front.embedder.is_starting:
                front.embedder.is_starting = False
            elif stages[-1].startswith("EMBEDDING"):
                front.embedder.gate.set()
            else:
                front.selector.gate.set()
    return list(dict.fromkeys(stages))


@pytest.fixture
def gates(front: Any) -> None:
    """The embedder and the selector wait until a caller has heard of their work."""
    front.embedder.gate, front.selector.gate = asyncio.Event(), asyncio.Event()


@pytest.mark.usefixtures("gates")
async def test_a_caller_who_waits_hears_what_is_done(front: Any, store_images: Any) -> None:
    await store_images(front, [1, 2, 3])
    front.embedder.is_starting = True
    assert await stages_of(front, front.embed.SelectSamples(ask())) == ["STARTING_WORKER", "EMBEDDING", "COMPUTING"]


@pytest.mark.usefixtures("gates")
@pytest.mark.parametrize(
    ("stages", "heard"), [(["queued"], "QUEUED"), (["queued", "starting"], "STARTING_WORKER"), ([], "COMPUTING")]
)
async def test_a_caller_hears_why_nothing_is_computed_yet(
    front: Any, store_images: Any, stages: list[str], heard: str
) -> None:
    await store_images(front, [1, 2, 3])
    front.selector.stages = stages
    assert await stages_of(front, front.embed.SelectSamples(ask())) == ["EMBEDDING", heard]


@pytest.mark.usefixtures("gates")
async def test_a_caller_hears_that_the_queries_are_embedded(front: Any, store_images: Any, png: Any) -> None:
    await store_images(front, [1, 2, 3])
    request = ask("similarity", given={"images": [types_pb2.Image(data=png(33))]})
    heard = await stages_of(front, front.embed.SelectSamples(request))
    assert heard[0] == "EMBEDDING_QUERIES"
