"""Tables are made where rows are missing, once for all who ask, over deaths of the embedder and of callers."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manyview_server.embedding_rows import encode
from manyview_server.errors import Aborted, NotFound, ResourceExhausted, ServiceError, Unavailable
from manyview_server.link.decode_notes import OUT_OF_MEMORY
from manyview_server.messages.embedding import EmbedDone, EmbedRecipe, ModelKey, RowFailed
from manyview_server.store.embeddings import tables as stored_tables
from manyview_server.store.embeddings.cache import EmbeddingCache, size_of
from manyview_server.store.embeddings.tables import EmbeddingTable, SegmentDamaged
from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.store.images.snapshots import Snapshot
from manyview_server.store.records import CheckedImage
from manyview_server.store.store import Store
from manyview_server.supervise.cores import CoreBudget
from manyview_server.supervise.embedders import segment_builder, tables
from manyview_server.supervise.embedders.embedder import EmbedderLimits, EmbedderSupervisor
from manyview_server.supervise.embedders.segment_builder import TableSpec
from manyview_server.supervise.embedders.tables import EmbeddingTables, OpenTable

NUM_IMAGES = 10


def spec(**changes: Any) -> TableSpec:
    model = ModelKey(name="backbones/x", checkpoint_dir="", backbone="x", weights_file="", output="backbone")
    fields: dict[str, Any] = {"num_features": 1, "owner": "backbone", "identity": ("torch 1",)}
    for name in changes.keys() - fields.keys() - {"data_type"}:
        model = replace(model, **{name: changes.pop(name)})
    return TableSpec(model=model, **{**fields, **changes})


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (stored_tables, tables):
        monkeypatch.setattr(module, "SEGMENT_ROWS", 4)
    monkeypatch.setattr(segment_builder, "CHUNK_IMAGES", 2)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path / "data", reserve_bytes=0)
    await opened.datasets.create("a")
    await add_images(opened, range(NUM_IMAGES))
    yield opened
    await opened.close()


async def add_images(store: Store, numbers: range) -> None:
    session = await store.uploads.open("a", f"u{numbers.start}")
    await session.append(1, [image(number) for number in numbers])


def image(number: int) -> CheckedImage:
    data = f"image {number}".encode()
    digest = hashlib.sha256(data).digest()
    return CheckedImage(data=data, key=f"{number}", label="", sha256=digest, extension="png", width=1, height=1)


@pytest.fixture
async def make(store: Store, scripted: Any) -> AsyncIterator[Callable[..., EmbeddingTables]]:
    made: list[EmbedderSupervisor] = []

    def make(behaviour: Any = "normal", max_bytes: int = 1 << 20, decode_cpu_s: float = 10.0) -> EmbeddingTables:
        command = scripted(embedder=behaviour)
        limits = EmbedderLimits(exit_s=0.2, decode_cpu_s=decode_cpu_s)
        embedder = EmbedderSupervisor(CoreBudget(2), "cpu", command=command, limits=limits)
        made.append(embedder)
        return EmbeddingTables(store, embedder, EmbeddingCache(store.embeddings_dir, max_bytes))

    yield make
    for embedder in made:
        await embedder.close()


async def rows(table: OpenTable) -> list[float]:
    await table.complete()
    count = -(-table.num_rows // 4)
    parts = [(await table.segment(index)).rows for index in range(count)]
    return [float(value) for value in np.concatenate(parts)[:, 0]]


def ids(snapshot: Snapshot) -> list[float]:
    return [float(value) for value in snapshot.rows.all()["image_id"].astype(np.float32)]


async def test_a_table_has_a_row_for_each_image_and_tells_how_far_it_is(store: Store, make: Any) -> None:
    snapshot = await store.datasets.snapshot("a")
    async with make().open(spec(), snapshot) as table:
        assert (table.num_rows, table.num_done) == (NUM_IMAGES, 0)
        assert await rows(table) == ids(snapshot)
        assert table.num_done == NUM_IMAGES
        assert (await table.unreadable()).tolist() == []


async def test_it_is_made_once_and_grows_with_the_data_set(store: Store, make: Any, monkeypatch: Any) -> None:
    made = make()
    async with made.open(spec(), await store.datasets.snapshot("a")) as table:
        await table.complete()
    await add_images(store, range(NUM_IMAGES, NUM_IMAGES + 3))
    asked: list[int] = []
    embed = EmbedderSupervisor.embed

    async def counted(self: Any, *given: Any, **fields: Any) -> Any:
        asked.append(len(given[1][0]))
        return await embed(self, *given, **fields)

    monkeypatch.setattr(EmbedderSupervisor, "embed", counted)
    snapshot = await store.datasets.snapshot("a")
    async with made.open(spec(), snapshot) as table:
        assert table.num_done == NUM_IMAGES
        assert await rows(table) == ids(snapshot)
    assert sum(asked) == 3 * snapshot.rows.all().itemsize


async def test_callers_of_one_table_share_the_work(store: Store, make: Any, monkeypatch: Any) -> None:
    made, asked = make({"image_s": 0.01}), []
    embed = EmbedderSupervisor.embed

    async def counted(self: Any, *given: Any, **fields: Any) -> Any:
        asked.append(fields)
        return await embed(self, *given, **fields)

    monkeypatch.setattr(EmbedderSupervisor, "embed", counted)
    snapshot = await store.datasets.snapshot("a")

    async def caller() -> list[float]:
        async with made.open(spec(), snapshot) as table:
            return await rows(table)

    answers = await asyncio.gather(*(caller() for _ in range(4)))
    assert answers == [ids(snapshot)] * 4
    assert len(asked) == NUM_IMAGES // 2


async def test_a_caller_that_goes_away_leaves_what_it_made_and_no_request(store: Store, make: Any) -> None:
    made = make({"image_s": 0.05})
    snapshot = await store.datasets.snapshot("a")

    async def caller() -> None:
        async with made.open(spec(), snapshot) as table:
            await table.complete()

    task = asyncio.create_task(caller())
    async with asyncio.timeout(20):
        while not list(store.embeddings_dir.glob("*/*/segment-*")):
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not made._embedder._running.requests.waiting
    async with made.open(spec(), snapshot) as table:
        assert table.num_done >= 4
        assert await rows(table) == ids(snapshot)


async def test_an_unreadable_image_is_a_row_without_numbers_and_is_noted(store: Store, make: Any) -> None:
    snapshot = await store.datasets.snapshot("a")
    bad = int(snapshot.rows.all()["image_id"][5])
    async with make({"unreadable": [bad]}).open(spec(), snapshot) as table:
        await table.complete()
        assert (await table.unreadable()).tolist() == [5]
        segment = await table.segment(1)
        assert [(error.row, error.reason) for error in segment.errors] == [(1, "DECODE_FAILED")]
        assert np.isnan(segment.rows[:, 0]).tolist() == [False, True, False, False]
    assert (await store.datasets.get("a")).num_unreadable == 1


async def test_want_of_memory_is_told_in_the_row_and_is_no_verdict_on_the_image(store: Store, make: Any) -> None:
    snapshot = await store.datasets.snapshot("a", 4)
    unlucky = int(snapshot.rows.all()["image_id"][1])
    async with make({"unreadable": [unlucky], "reason": OUT_OF_MEMORY}).open(spec(), snapshot) as table:
        await table.complete()
        assert (await table.unreadable()).tolist() == [1]
        assert [error.reason for error in (await table.segment(0)).errors] == [OUT_OF_MEMORY]
    assert (await store.datasets.get("a")).num_unreadable == 0


async def test_an_image_that_kills_the_embedder_is_found_left_out_and_kept_away_from_it(
    store: Store, make: Any
) -> None:
    snapshot = await store.datasets.snapshot("a", 4)
    culprit = int(snapshot.rows.all()["image_id"][2])
    async with make({"crashing": [culprit]}).open(spec(), snapshot) as table:
        await table.complete()
        segment = await table.segment(0)
        assert [(error.row, error.reason) for error in segment.errors] == [(2, "DECODER_CRASHED")]
        assert np.isnan(segment.rows[:, 0]).tolist() == [False, False, True, False]
    uid = snapshot.dataset.uid
    assert await store.datasets.unreadable_ids(uid, "DECODER_CRASHED") == (culprit,)
    async with make({"crashing": [culprit]}).open(spec(name="backbones/y"), snapshot) as table:
        await table.complete()


async def test_a_request_names_only_its_own_images_among_those_that_kill_the_embedder(
    store: Store, make: Any, monkeypatch: Any
) -> None:
    snapshot = await store.datasets.snapshot("a", 4)
    culprit = int(snapshot.rows.all()["image_id"][2])
    known = (*range(2**63, 2**63 + 100_000), culprit)  # all of them take more than a message may

    async def unreadable_ids(uid: str, reason: str, *_: int) -> tuple[int, ...]:
        return known if reason == "DECODER_CRASHED" else ()

    monkeypatch.setattr(store.datasets, "unreadable_ids", unreadable_ids)
    async with make({"crashing": [culprit]}).open(spec(), snapshot) as table:
        await table.complete()
        assert await rows(table) == ids(snapshot)


async def test_an_image_that_takes_the_embedder_too_long_is_found_and_kept_away_from_it(
    store: Store, make: Any
) -> None:
    snapshot = await store.datasets.snapshot("a", 4)
    slow = int(snapshot.rows.all()["image_id"][1])
    tables = make({"burn": [slow]}, decode_cpu_s=0.3)
    async with tables.open(spec(), snapshot) as table:
        await table.complete()
        segment = await table.segment(0)
        assert [(error.row, error.reason) for error in segment.errors] == [(1, "DECODE_TOO_SLOW")]
    assert await store.datasets.unreadable_ids(snapshot.dataset.uid, "DECODE_TOO_SLOW") == (slow,)
    # A server that starts later knows it from the store.
    async with make({"burn": [slow]}, decode_cpu_s=600.0).open(spec(name="backbones/y"), snapshot) as table:
        await table.complete()
        assert (await table.unreadable()).tolist() == [1]


async def test_an_embedder_that_died_once_is_asked_again(store: Store, make: Any, monkeypatch: Any) -> None:
    snapshot = await store.datasets.snapshot("a")
    failures = iter([Unavailable("EMBEDDER_RESTARTED", "died", retry_after_s=0.01)] * 3)
    embed = EmbedderSupervisor.embed

    async def failing(self: Any, *given: Any, **fields: Any) -> Any:
        if (failure := next(failures, None)) is not None:
            raise failure
        return await embed(self, *given, **fields)

    monkeypatch.setattr(EmbedderSupervisor, "embed", failing)
    async with make().open(spec(), snapshot) as table:
        assert await rows(table) == ids(snapshot)


@pytest.mark.parametrize(
    "failure",
    [
        NotFound("CHECKPOINT_GONE", "gone"),
        Unavailable("DRAINING", "stops", retry_after_s=1.0),
        Unavailable("EMBEDDER_RESTARTED", "died", retry_after_s=0.001),
    ],
)
async def test_what_does_not_pass_is_told(store: Store, make: Any, monkeypatch: Any, failure: ServiceError) -> None:
    async def failing(self: Any, *given: Any, **fields: Any) -> Any:
        raise failure

    monkeypatch.setattr(EmbedderSupervisor, "embed", failing)
    async with make().open(spec(), await store.datasets.snapshot("a")) as table:
        with pytest.raises(type(failure), match=failure.message):
            await table.complete()


async def test_damage_is_mended_where_it_is_met(store: Store, make: Any) -> None:
    made, snapshot = make(), await store.datasets.snapshot("a")
    async with made.open(spec(), snapshot) as table:
        await table.complete()
        path = table.directory / "segment-00000001"
        path.write_bytes(path.read_bytes()[:-40] + bytes(40))
        assert await rows(table) == ids(snapshot)
        path.unlink()
        assert (await table.unreadable()).tolist() == []
        assert await rows(table) == ids(snapshot)
        await table.repair(SegmentDamaged(2, "somebody says so"))
        assert await rows(table) == ids(snapshot)


async def test_a_partial_segment_that_is_damaged_is_made_again_as_a_whole(store: Store, make: Any) -> None:
    made = make()
    async with made.open(spec(), await store.datasets.snapshot("a")) as table:
        await table.complete()
        path = table.directory / "segment-00000002"
    path.write_bytes(path.read_bytes()[:-40] + bytes(40))
    await add_images(store, range(NUM_IMAGES, NUM_IMAGES + 1))
    snapshot = await store.datasets.snapshot("a")
    async with made.open(spec(), snapshot) as table:
        assert await rows(table) == ids(snapshot)


async def test_a_disk_that_does_not_keep_a_segment_ends_the_wait(store: Store, make: Any, monkeypatch: Any) -> None:
    async with make().open(spec(), await store.datasets.snapshot("a")) as table:
        await table.complete()

        def broken(index: int, num_rows: int) -> None:
            raise SegmentDamaged(index, "broken")

        monkeypatch.setattr(table._table, "read", broken)
        with pytest.raises(ServiceError, match="damages the embeddings"):
            await table.segment(0)


async def test_tables_differ_by_everything_that_decides_what_a_row_is() -> None:
    same = spec().digest
    assert spec().digest == same
    for changes in (
        {"name": "backbones/y"},
        {"checkpoint_dir": "/x/000000001-1"},
        {"backbone": "y"},
        {"weights_file": "/w"},
        {"output": "projection"},
        {"num_features": 2},
        {"identity": ("torch 2",)},
        {"data_type": "float16"},
    ):
        assert spec(**changes).digest != same


async def test_a_data_set_that_is_deleted_meanwhile_leaves_nothing_behind(store: Store, make: Any) -> None:
    snapshot = await store.datasets.snapshot("a")
    made = make({"image_s": 0.02})

    async def caller() -> None:
        async with made.open(spec(), snapshot) as table:
            await table.complete()

    task = asyncio.create_task(caller())
    async with asyncio.timeout(20):
        while not list(store.embeddings_dir.glob("*/*/segment-*")):
            await asyncio.sleep(0.01)
    await store.datasets.delete("a")
    with pytest.raises(Aborted, match="deleted in the meantime") as caught:
        await task
    assert caught.value.reason == "EMBEDDINGS_GONE"
    assert list(store.embeddings_dir.iterdir()) == []
    async with made.open(spec(), snapshot):
        pass
    assert list(store.embeddings_dir.iterdir()) == []


async def test_another_table_makes_room_but_not_one_in_use(store: Store, make: Any) -> None:
    snapshot = await store.datasets.snapshot("a")

    async def fill(model: str) -> Path:
        async with made.open(spec(name=model), snapshot) as table:
            await table.complete()
            return table.directory

    made = make()
    one = await fill("backbones/1")
    made = make(max_bytes=size_of(one) + 100)
    two = await fill("backbones/2")
    assert (one.exists(), two.exists()) == (False, True)
    async with made.open(spec(name="backbones/2"), snapshot):
        with pytest.raises(ResourceExhausted) as caught:
            await fill("backbones/3")
    assert caught.value.reason == "EMBEDDING_CACHE_FULL"
    assert two.exists()


async def test_a_full_disk_is_told_as_one(store: Store, make: Any, monkeypatch: Any) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("manyview_server.store.array_file.write", full)
    with pytest.raises(ResourceExhausted) as caught:
        async with make().open(spec(), await store.datasets.snapshot("a")) as table:
            await table.complete()
    assert caught.value.reason == "DISK_FULL"


async def test_complete_segments_are_packed_and_a_refusal_costs_nothing(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (stored_tables, tables):
        monkeypatch.setattr(module, "BLOCK_SEGMENTS", 2)
    made, snapshot = make(), await store.datasets.snapshot("a")

    def full(*_: object) -> None:
        raise OSError(28, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingTable, "pack", full)
        async with made.open(spec(), snapshot) as table:
            assert await rows(table) == ids(snapshot)
    assert files(table) == ["segment-00000000", "segment-00000001", "segment-00000002"], "as older servers leave them"
    await add_images(store, range(NUM_IMAGES, NUM_IMAGES + 7))
    snapshot = await store.datasets.snapshot("a")
    async with made.open(spec(), snapshot) as table:
        assert await rows(table) == ids(snapshot)
        assert files(table) == ["block-00000000", "block-00000001", "segment-00000004"], "the older ones, too"
        await table.repair(SegmentDamaged(3, "somebody says so"))
        assert await rows(table) == ids(snapshot)


def files(table: OpenTable) -> list[str]:
    return sorted(path.name for path in table.directory.iterdir())


async def test_a_row_that_float16_cannot_hold_has_no_embedding_and_its_image_is_not_to_blame(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def embed(self: object, recipe: EmbedRecipe, images: Any, **_: Any) -> EmbedDone:
        assert recipe.data_type == "float16"
        count = len(np.frombuffer(images[0], SNAPSHOT_DTYPE))
        found = encode(np.array([[1.5]] + [[7e4]] * (count - 1)), unit=False, data_type="float16")
        failed = [RowFailed(row=row, reason=why, message=text) for row, (why, text) in found.errors.items()]
        zero: dict[str, Any] = {"request_id": 1, "queue_ms": 0, "decode_ms": 0, "forward_ms": 0, "batch_images": 1}
        return EmbedDone(**zero, shape=(count, 1), errors=tuple(failed), blobs=(found.data,))

    monkeypatch.setattr(EmbedderSupervisor, "embed", embed)
    async with make().open(spec(data_type="float16"), await store.datasets.snapshot("a", 4)) as table:
        segment = await table.segment(0)
        assert segment.rows.dtype == np.float32
        np.testing.assert_array_equal(segment.rows[:, 0], [1.5, np.nan, 1.5, np.nan])
        assert [(error.row, error.reason) for error in segment.errors] == [
            (1, "FLOAT16_OVERFLOW"),
            (3, "FLOAT16_OVERFLOW"),
        ]
        assert "embedding_table_type" in segment.errors[0].message
        assert (await table.unreadable()).tolist() == [1, 3]
    assert (await store.datasets.get("a")).num_unreadable == 0
