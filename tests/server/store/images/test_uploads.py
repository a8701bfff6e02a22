from __future__ import annotations

import asyncio
import gc
import hashlib
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyview_server.errors import Aborted, FailedPrecondition, NotFound, ServiceError
from manyview_server.store.database import database as database_module
from manyview_server.store.images import uploads as uploads_module
from manyview_server.store.images.shards import ShardReader, image_id_of
from manyview_server.store.records import CheckedImage, ImageOutcome, RejectedImage
from manyview_server.store.store import Store
from support.clients.upload_model import UploadModel

MakeImage = Callable[..., CheckedImage]


async def test_a_batch_is_stored_and_its_bytes_read_back(store: Store, image: MakeImage) -> None:
    dataset = await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    images = [image(i) for i in range(3)]
    outcomes = await session.append(1, images)
    assert [o.outcome for o in outcomes] == ["STORED"] * 3
    assert [o.image_id for o in outcomes] == [image_id_of(i.sha256) for i in images]
    snapshot = await store.datasets.snapshot("a")
    reader = ShardReader(store.datasets.directory(dataset.uid))
    stored = [reader.read(int(r["shard"]), int(r["offset"]), int(r["length"])) for r in snapshot.rows.all()]
    assert stored == [i.data for i in images]
    reader.close()


async def test_a_second_copy_answers_with_the_first_ones_key_and_label(store: Store, image: MakeImage) -> None:
    await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    first, same, other = image(1, label="cat"), image(1, label="cat", key="b"), image(1, label="dog", key="c")
    assert (await session.append(1, [first, same]))[1] == ImageOutcome(
        outcome="DUPLICATE", image_id=image_id_of(first.sha256), first_key="1.jpg"
    )
    (outcome,) = await session.append(2, [other])
    assert (outcome.first_label, outcome.label_differs) == ("cat", True)
    dataset = await store.datasets.get("a")
    assert (dataset.num_images, dataset.num_labels, dataset.num_labelled) == (1, 1, 1)


async def test_refused_images_leave_their_neighbors_alone(
    store: Store, image: MakeImage, refused: Callable[[int], RejectedImage]
) -> None:
    await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    outcomes = await session.append(1, [image(1), refused(2), image(3)])
    assert [o.outcome for o in outcomes] == ["STORED", "REJECTED", "STORED"]
    assert (outcomes[1].reason, outcomes[1].message) == ("FORMAT_NOT_ALLOWED", "a GIF")
    upload = await store.uploads.get("a", "u")
    assert (upload.num_images, upload.num_stored, upload.num_rejected) == (3, 2, 1)
    assert (await store.datasets.get("a")).num_rejected == 1


async def test_an_open_whose_commit_fails_leaves_the_upload_to_the_session_before_it(
    store: Store, image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    await session.append(1, [image(1)])
    real = database_module._in_transaction

    def full(connection: sqlite3.Connection, fn: Callable[[sqlite3.Connection], Any]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        fn(connection)
        connection.execute("ROLLBACK")
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr(database_module, "_in_transaction", full)
    with pytest.raises(ServiceError, match="full"):
        await store.uploads.open("a", "u")
    monkeypatch.setattr(database_module, "_in_transaction", real)
    assert [outcome.outcome for outcome in await session.append(2, [image(2)])] == ["STORED"]
    other = await store.uploads.open("a", "u")
    with pytest.raises(Aborted, match="another stream"):
        await session.append(3, [image(3)])
    await other.append(3, [image(3)])


async def test_nothing_is_held_of_an_upload_whose_sessions_are_gone(store: Store, image: MakeImage) -> None:
    await store.datasets.create("a")
    for number in range(20):
        session = await store.uploads.open("a", f"u{number}")
        await session.append(1, [image(number)])
        await session.finish(1)
        await session.finish(1)
    gc.collect()
    assert len(store.uploads._ingest.owners) == 1
    await session.finish(1)


async def test_a_gap_names_the_number_expected(store: Store, image: MakeImage) -> None:
    await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    with pytest.raises(Aborted) as caught:
        await session.append(2, [image(1)])
    assert (caught.value.reason, caught.value.metadata) == ("SEQUENCE_GAP", {"expected": "1"})
    assert (await store.datasets.get("a")).num_images == 0


async def test_a_second_session_fences_the_first(store: Store, image: MakeImage) -> None:
    await store.datasets.create("a")
    first = await store.uploads.open("a", "u")
    await first.append(1, [image(1)])
    second = await store.uploads.open("a", "u", first_digest := hashlib.sha256(image(1).sha256).digest())
    assert second.upload.digest == first_digest
    with pytest.raises(Aborted, match="another stream"):
        await first.append(2, [image(2)])
    with pytest.raises(Aborted, match="another stream"):
        await first.finish(1)
    assert (await second.append(2, [image(3)]))[0].outcome == "STORED"


async def test_resuming_with_other_images_is_refused(store: Store, image: MakeImage) -> None:
    await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    await session.append(1, [image(1)])
    with pytest.raises(FailedPrecondition) as caught:
        await store.uploads.open("a", "u", hashlib.sha256(image(2).sha256).digest())
    assert caught.value.reason == "UPLOAD_CHANGED"
    # The refused stream has fenced nobody.
    await session.append(2, [image(2)])


async def test_repeating_a_batch_with_other_images_is_refused(store: Store, image: MakeImage) -> None:
    await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    await session.append(1, [image(1)])
    with pytest.raises(FailedPrecondition) as caught:
        await session.append(1, [image(2)])
    assert caught.value.reason == "UPLOAD_CHANGED"


async def test_finishing_needs_the_servers_count_and_may_be_repeated(store: Store, image: MakeImage) -> None:
    await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    await session.append(1, [image(1), image(1)])
    with pytest.raises(FailedPrecondition) as caught:
        await session.finish(3)
    assert (caught.value.reason, caught.value.metadata) == ("FINISH_MISMATCH", {"have": "2", "want": "3"})
    for _ in range(2):
        upload, dataset = await session.finish(2)
        assert upload.finished
        assert dataset is not None
        assert dataset.num_images == 1
    with pytest.raises(FailedPrecondition, match="finished"):
        await session.append(2, [image(2)])
    assert (await session.append(1, [image(1), image(1)]))[0].outcome == "STORED"


async def test_finishing_waits_for_batches_on_their_way(store: Store, image: MakeImage) -> None:
    await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    sent = [asyncio.create_task(session.append(n, [image(n)])) for n in range(1, 20)]
    await asyncio.sleep(0)
    upload, _ = await session.finish(19)
    assert upload.committed_number == 19
    await asyncio.gather(*sent)


async def test_one_image_from_many_sessions_at_once_is_stored_once(store: Store, image: MakeImage) -> None:
    await store.datasets.create("a")
    sessions = [await store.uploads.open("a", f"u{i}") for i in range(8)]
    answers = await asyncio.gather(*(s.append(1, [image(1)]) for s in sessions))
    assert sorted(a[0].outcome for a in answers) == ["DUPLICATE"] * 7 + ["STORED"]


async def test_batches_that_wait_are_committed_together(
    store: Store, image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    real = store.uploads._ingest.commit

    def count(group: Any) -> Any:
        groups.append(len(group))
        return real(group)

    monkeypatch.setattr(store.uploads._ingest, "commit", count)
    await store.datasets.create("a")
    sessions = [await store.uploads.open("a", f"u{i}") for i in range(16)]
    await asyncio.gather(*(s.append(1, [image(i)]) for i, s in enumerate(sessions)))
    assert sum(groups) == 16
    assert len(groups) <= 3


async def test_a_group_has_few_images_unless_one_batch_has_many(
    store: Store, image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database thread inserts their rows one by one, and other commits wait."""
    monkeypatch.setattr(uploads_module, "MAX_GROUP_IMAGES", 4)
    groups: list[list[int]] = []
    real = store.uploads._ingest.commit

    def count(group: Any) -> Any:
        groups.append([len(batch.images) for batch in group])
        return real(group)

    monkeypatch.setattr(store.uploads._ingest, "commit", count)
    await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    sizes = [1, 3, 2, 2, 6, 1]
    batches = [[image(10 * number + one) for one in range(size)] for number, size in enumerate(sizes)]
    await asyncio.gather(*(session.append(number, batch) for number, batch in enumerate(batches, 1)))
    assert groups == [[1, 3], [2, 2], [6], [1]]


async def test_a_refused_batch_does_not_harm_its_group(store: Store, image: MakeImage) -> None:
    await store.datasets.create("a")
    good, bad = await store.uploads.open("a", "good"), await store.uploads.open("a", "bad")
    answers = await asyncio.gather(
        good.append(1, [image(1)]), bad.append(5, [image(2)]), good.append(2, [image(3)]), return_exceptions=True
    )
    assert isinstance(answers[1], Aborted)
    assert (await store.uploads.get("a", "good")).committed_number == 2
    assert (await store.datasets.get("a")).num_images == 2


async def test_a_caller_that_goes_away_takes_nothing_back(store: Store, image: MakeImage) -> None:
    await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    sending = asyncio.create_task(session.append(1, [image(1)]))
    await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    upload, _ = await session.finish(1)
    assert upload.num_stored == 1


async def test_unknown_names_are_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="no data set"):
        await store.uploads.open("a", "u")
    await store.datasets.create("a")
    with pytest.raises(NotFound, match="no upload"):
        await store.uploads.get("a", "u")


async def test_deleting_the_data_set_ends_its_uploads(store: Store, image: MakeImage) -> None:
    await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    await session.append(1, [image(1)])
    await store.datasets.delete("a")
    with pytest.raises(NotFound, match="deleted"):
        await session.append(2, [image(2)])
    with pytest.raises(NotFound, match="deleted"):
        await session.finish(1)


async def test_a_data_set_that_an_upload_created_is_removed_again_if_all_images_were_refused(
    store: Store, image: MakeImage, refused: Callable[[int], RejectedImage]
) -> None:
    for number in range(2):  # also when the name is used again
        session = await store.uploads.open("a", "u", create_dataset=True)
        directory = store.datasets.directory((await store.datasets.get("a")).uid)
        await session.append(1, [refused(number)])
        upload, dataset = await session.finish(1)
        assert (upload.finished, upload.num_rejected, dataset) == (True, 1, None)
        assert not directory.exists()
        with pytest.raises(NotFound, match="no data set"):
            await store.datasets.get("a")
    session = await store.uploads.open("a", "u", create_dataset=True)
    await session.append(1, [refused(1), image(1)])
    _, dataset = await session.finish(2)
    assert dataset is not None
    assert (dataset.num_images, dataset.num_rejected) == (1, 1)


async def test_an_upload_that_continues_after_a_restart_removes_the_empty_data_set_that_it_created(
    tmp_path: Path, image: MakeImage, refused: Callable[[int], RejectedImage]
) -> None:
    store = Store.open(tmp_path / "restarted", reserve_bytes=0)
    session = await store.uploads.open("a", "u", create_dataset=True)
    await session.append(1, [refused(1)])
    await store.close()
    store = Store.open(tmp_path / "restarted", reserve_bytes=0)
    upload = await store.uploads.get("a", "u")
    session = await store.uploads.open("a", "u", upload.digest, create_dataset=True)
    await session.append(2, [refused(2)])
    _, dataset = await session.finish(2)
    assert dataset is None
    assert (await store.datasets.list(10), list((tmp_path / "restarted" / "datasets").iterdir())) == (([], ""), [])
    await store.close()


async def test_an_empty_data_set_stays_if_an_upload_did_not_create_it(
    store: Store, refused: Callable[[int], RejectedImage]
) -> None:
    await store.datasets.create("a")
    session = await store.uploads.open("a", "u", create_dataset=True)
    await session.append(1, [refused(1)])
    _, dataset = await session.finish(1)
    assert dataset is not None


async def test_an_empty_data_set_stays_while_another_upload_to_it_is_open(
    store: Store, image: MakeImage, refused: Callable[[int], RejectedImage]
) -> None:
    first = await store.uploads.open("a", "first", create_dataset=True)
    second = await store.uploads.open("a", "second", create_dataset=True)
    await first.append(1, [refused(1)])
    _, dataset = await first.finish(1)
    assert dataset is not None
    await second.append(1, [refused(2)])
    _, dataset = await second.finish(1)
    assert dataset is None


async def test_a_stream_that_is_refused_creates_no_data_set(store: Store) -> None:
    with pytest.raises(FailedPrecondition, match="these are not the images that were ackn"):
        await store.uploads.open("a", "u", b"x" * 32, create_dataset=True)
    assert await store.datasets.list(10) == ([], "")


BATCH = st.lists(st.integers(-2, 12), max_size=4)
STEP = st.one_of(
    st.tuples(st.just("next"), BATCH),
    st.tuples(st.just("again"), st.integers(0, 5)),
    st.tuples(st.just("gap"), BATCH),
    st.tuples(st.just("reopen"), st.just(None)),
    st.tuples(st.just("restart"), st.just(None)),
    st.tuples(st.just("finish"), st.sampled_from([0, 0, 1])),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=20))
def test_any_order_of_batches_answers_as_the_protocol_says(
    steps: list[tuple[str, Any]], image: MakeImage, refused: Callable[[int], RejectedImage]
) -> None:
    with tempfile.TemporaryDirectory() as root:
        asyncio.run(follow(Path(root), steps, lambda n: refused(n) if n < 0 else image(n)))


async def follow(root: Path, steps: list[tuple[str, Any]], make: Callable[[int], Any]) -> None:
    model, digest, store = UploadModel(), b"", Store.open(root, reserve_bytes=0)
    await store.datasets.create("a")
    session = await store.uploads.open("a", "u")
    for step, value in steps:
        if step in ("reopen", "restart"):
            if step == "restart":
                await store.close()
                store = Store.open(root, reserve_bytes=0)
            session = await store.uploads.open("a", "u", digest)
            assert session.upload.committed_number == len(model.committed)
        elif step == "finish":
            expected = model.finish(model.num_images + value)
            assert await outcome_of(session.finish(model.num_images + value)) == expected
        else:
            number = len(model.committed) + {"next": 1, "gap": 2}.get(step, 0) - (value if step == "again" else 0)
            if number < 1:
                continue
            batch = model.committed[number - 1][0] if step == "again" else value
            outcomes = model.append(number, batch)
            images = [make(n) for n in batch]
            if isinstance(outcomes, list) and step == "next":
                for one in images:
                    digest = hashlib.sha256(digest + one.sha256).digest()
            assert await outcome_of(session.append(number, images)) == outcomes
    upload, dataset = await store.uploads.get("a", "u"), await store.datasets.get("a")
    assert upload.digest == digest
    assert upload.num_images == model.num_images
    assert (upload.num_stored, dataset.num_images) == (len(model.stored), len(model.stored))
    await store.close()


async def outcome_of(call: Any) -> Any:
    try:
        answer = await call
    except ServiceError as error:
        return error.reason
    return [one.outcome for one in answer] if isinstance(answer, list) else "FINISHED"
