from __future__ import annotations

import asyncio
import itertools
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from manyview_server.errors import Aborted, AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument, NotFound
from manyview_server.messages.training import Adoption
from manyview_server.store.event_payloads import Log, SnapshotAdopted, StateChange
from manyview_server.store.job_states import NEXT_STATES, JobState
from manyview_server.store.jobs import checkpoints
from manyview_server.store.jobs.job_verbs import CANCEL, PAUSE, RESUME, Verb
from manyview_server.store.records import Activity, CheckedImage, Checkpoint, Failure, Job, Progress
from manyview_server.store.store import Store


@pytest.fixture
async def store(store: Store) -> Store:
    await store.datasets.create("a")
    return store


async def create(store: Store, name: str = "j") -> Job:
    return await store.jobs.create(name, "a", "moco", {"epochs": 3, "views": {"blur": 0.5}}, "0.1.0")


async def states(store: Store, name: str = "j") -> list[tuple[str, str]]:
    events = await store.events.read(name, 0, 1000)
    return [(e.payload.from_state, e.payload.to_state) for e in events if isinstance(e.payload, StateChange)]


async def test_a_job_pins_the_images_that_the_data_set_holds_when_it_is_created(
    store: Store, image: Callable[[int], CheckedImage]
) -> None:
    session = await store.uploads.open("a", "u")
    await session.append(1, [image(1), image(2)])
    job = await create(store)
    await session.append(2, [image(3)])
    assert (job.num_images, job.state, job.desired) == (2, "QUEUED", "run")
    assert job.settings == {"epochs": 3, "views": {"blur": 0.5}}
    assert (await store.jobs.get("j")).num_images == 2
    assert await states(store) == [("", "QUEUED")]


async def test_a_job_that_follows_grows_with_what_it_adopts_and_tells_each_time(
    store: Store, image: Callable[[int], CheckedImage]
) -> None:
    await (await store.uploads.open("a", "u")).append(1, [image(1), image(2)])
    assert (await store.jobs.create("j", "a", "moco", {}, "0.1.0", min_images=2)).num_images == 0
    first, second = Adoption(step=0, epoch=0, num_images=2), Adoption(step=7, epoch=3, num_images=5)
    assert (await store.jobs.adopt("j", first, num_added=2, attempt=1)).num_images == 2
    assert (await store.jobs.adopt("j", second, num_added=3, attempt=1)).num_images == 5
    assert await store.jobs.adoptions("j", 0) == [first, second]
    assert (await store.jobs.adopt("j", first, num_added=2, attempt=2)).num_images == 5, "an attempt repeats it"
    assert await store.jobs.adoptions("j", 0) == [first, second, first]
    assert await store.jobs.adoptions("j", 7) == [second]
    events = [event for event in await store.events.read("j", 0, 100) if event.kind == "snapshot"]
    assert [(e.step, e.epoch, e.attempt, e.payload) for e in events][1:] == [
        (7, 3, 1, SnapshotAdopted(num_images=5, num_added=3)),
        (0, 0, 2, SnapshotAdopted(num_images=2, num_added=2)),
    ]


async def test_each_transition_is_an_event_and_the_events_fold_to_the_state(store: Store) -> None:
    await create(store)
    await store.jobs.transition("j", {"QUEUED"}, "STARTING", attempt=1)
    await store.jobs.transition("j", {"STARTING"}, "RUNNING")
    await store.jobs.transition("j", {"RUNNING"}, "RECOVERING", reason="SIGNAL_9", message="killed", restarts=1)
    await store.jobs.transition("j", {"RECOVERING"}, "STARTING", attempt=2)
    await store.jobs.transition("j", {"STARTING"}, "RUNNING")
    job = await store.jobs.transition(
        "j", {"RUNNING", "CANCELLING"}, "FAILED", reason="NON_FINITE_LOSS", message="at step 3", hint="lower the rate"
    )
    assert job.failure == Failure(reason="NON_FINITE_LOSS", message="at step 3", hint="lower the rate")
    assert (job.attempt, job.restarts, job.terminal) == (2, 1, True)
    assert job.create_time <= job.start_time <= job.end_time
    path = await states(store)
    assert all(before == to for (_, before), (to, _) in itertools.pairwise(path))
    assert path[-1][1] == job.state
    recovering = (await store.events.read("j", 3, 1))[0]
    change = StateChange(from_state="RUNNING", to_state="RECOVERING", reason="SIGNAL_9", message="killed")
    assert recovering.payload == change


async def test_a_lost_race_is_told_and_changes_nothing(store: Store) -> None:
    await create(store)
    await store.jobs.request("j", CANCEL)
    with pytest.raises(Aborted) as caught:
        await store.jobs.transition("j", {"QUEUED"}, "STARTING")
    assert (caught.value.reason, caught.value.metadata) == ("STATE_CONFLICT", {"state": "CANCELLED"})
    assert await states(store) == [("", "QUEUED"), ("QUEUED", "CANCELLED")]


async def test_one_of_two_transitions_at_once_wins(store: Store) -> None:
    await create(store)
    answers = await asyncio.gather(
        *(store.jobs.transition("j", {"QUEUED"}, "STARTING") for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(a).__name__ for a in answers) == ["Aborted", "Job"]
    assert await states(store) == [("", "QUEUED"), ("QUEUED", "STARTING")]


async def test_a_transition_that_makes_no_sense_is_a_bug(store: Store) -> None:
    await create(store)
    with pytest.raises(ValueError, match="QUEUED to SUCCEEDED"):
        await store.jobs.transition("j", {"QUEUED"}, "SUCCEEDED")
    assert await states(store) == [("", "QUEUED")]


async def test_cancelling_a_job_that_runs_waits_for_its_trainer(store: Store) -> None:
    await create(store)
    await store.jobs.transition("j", {"QUEUED"}, "STARTING")
    for _ in range(2):
        job = await store.jobs.request("j", CANCEL)
        assert (job.state, job.desired) == ("CANCELLING", "cancel")
    await store.jobs.transition("j", {"CANCELLING"}, "CANCELLED")
    assert (await store.jobs.request("j", CANCEL)).state == "CANCELLED"
    assert len(await states(store)) == 4


async def test_a_job_that_ended_otherwise_cannot_be_cancelled(store: Store) -> None:
    await create(store)
    await store.jobs.transition("j", {"QUEUED"}, "FAILED", reason="CONFIG_INVALID")
    with pytest.raises(FailedPrecondition) as caught:
        await store.jobs.request("j", CANCEL)
    assert caught.value.metadata == {"state": "FAILED"}
    assert (await store.jobs.get("j")).desired == "run"


@pytest.mark.parametrize("verb", [PAUSE, RESUME, CANCEL], ids=lambda verb: verb.desired)
async def test_a_wish_leads_each_state_where_it_says_and_is_refused_in_the_others(store: Store, verb: Verb) -> None:
    ways: dict[JobState, tuple[JobState, ...]] = {
        "QUEUED": (),
        "STARTING": ("STARTING",),
        "RUNNING": ("STARTING", "RUNNING"),
        "RECOVERING": ("STARTING", "RECOVERING"),
        "PAUSING": ("STARTING", "PAUSING"),
        "PAUSED": ("PAUSED",),
        "CANCELLING": ("STARTING", "CANCELLING"),
        "CANCELLED": ("CANCELLED",),
        "SUCCEEDED": ("STARTING", "RUNNING", "SUCCEEDED"),
        "FAILED": ("FAILED",),
    }
    assert set(ways) == set(NEXT_STATES)
    for state, way in ways.items():
        name = state.lower()
        await create(store, name)
        for step in way:
            await store.jobs.transition(name, set(ways), step)
        before = (await store.jobs.get(name)).last_sequence
        if state not in verb.next_states:
            with pytest.raises(FailedPrecondition) as caught:
                await store.jobs.request(name, verb)
            assert caught.value.metadata == {"state": state}
            assert (await store.jobs.get(name)).last_sequence == before
            continue
        for _ in range(2):
            job = await store.jobs.request(name, verb)
            assert (job.state, job.desired) == (verb.next_states[state], verb.desired)
        assert job.last_sequence == before + (job.state != state), "repeating it is no event"


async def test_a_job_goes_on_from_a_copy_of_a_checkpoint_that_outlives_the_original(store: Store) -> None:
    source = await written(store, await create(store, "first"), step=7)
    job = await store.jobs.create("second", "a", "moco", {}, "0.1.0", source=source)
    assert (job.latest_checkpoint, job.continued_from) == (7, "trainJobs/first/checkpoints/7")
    assert (job.progress.step, job.attempt) == (7, 0)
    (line,) = await store.events.read("second", 1, 9)
    assert line.payload == Log(level="info", text="continues from trainJobs/first/checkpoints/7")
    await store.jobs.request("first", CANCEL)
    await store.jobs.delete("first")
    (copy,) = await store.checkpoints.list("second")
    assert (copy.step, copy.attempt) == (7, 0)
    assert checkpoints.verify(Path(copy.directory))["files"].keys() == {"state.json"}


async def test_a_corrupt_or_vanished_checkpoint_is_not_copied_and_nothing_is_left(store: Store) -> None:
    source = await written(store, await create(store, "first"), step=7)
    (Path(source.directory) / "state.json").write_bytes(b"{]")
    for _ in range(2):
        with pytest.raises(DataLoss) as caught:
            await store.jobs.create("second", "a", "moco", {}, "0.1.0", source=source)
        assert caught.value.reason == "CHECKPOINT_CORRUPT"
        shutil.rmtree(source.directory, ignore_errors=True)
    good = await written(store, await store.jobs.get("first"), step=8)
    with pytest.raises(AlreadyExists):
        await store.jobs.create("first", "a", "moco", {}, "0.1.0", source=good)
    assert [path.name for path in store.jobs_dir.iterdir()] == [(await store.jobs.get("first")).uid]


async def written(store: Store, job: Job, step: int) -> Checkpoint:
    """A real checkpoint of one file."""
    directory = store.checkpoints.directory(job.uid) / checkpoints.name(step, 1)
    size = checkpoints.num_bytes(checkpoints.write(directory, {"state.json": b'{"step": %d}' % step}))
    return await store.checkpoints.add(
        job.train_job_id, step=step, epoch=1, attempt=1, directory=str(directory), num_bytes=size, model={}
    )


async def test_the_queue_is_first_in_first_out(store: Store) -> None:
    for name in ("one", "two", "three"):
        await create(store, name)
    assert [(await store.jobs.get(n)).queue_position for n in ("one", "two", "three")] == [0, 1, 2]
    await store.jobs.transition("one", {"QUEUED"}, "STARTING")
    await store.jobs.request("two", CANCEL)
    assert (await store.jobs.get("three")).queue_position == 0
    assert [j.train_job_id for j in await store.jobs.unfinished()] == ["one", "three"]


async def test_jobs_are_listed_newest_first_in_pages(store: Store) -> None:
    for name in ("one", "two", "three"):
        await create(store, name)
    page, token = await store.jobs.list(2)
    assert [j.train_job_id for j in page] == ["three", "two"]
    page, token = await store.jobs.list(2, token)
    assert ([j.train_job_id for j in page], token) == (["one"], "")
    with pytest.raises(InvalidArgument, match="page token"):
        await store.jobs.list(2, "x")


async def test_names_are_taken_once_and_made_up_where_missing(store: Store) -> None:
    await create(store)
    with pytest.raises(AlreadyExists, match="'j'"):
        await create(store)
    made, other = await create(store, ""), await create(store, "")
    assert made.train_job_id != other.train_job_id
    with pytest.raises(NotFound, match="no data set"):
        await store.jobs.create("k", "none", "moco", {}, "0")
    with pytest.raises(NotFound, match="no train job"):
        await store.jobs.get("none")


async def test_nothing_is_held_of_the_progress_of_a_job_that_has_ended(store: Store) -> None:
    for name, end in (("ended", "FAILED"), ("cancelled", "CANCELLED")):
        await store.jobs.create(name, "a", "moco", {}, "1")
        store.jobs.report_progress(name, Progress(step=7))
        if end == "FAILED":
            await store.jobs.transition(name, {"QUEUED"}, "FAILED", reason="INTERNAL")
        else:
            await store.jobs.request(name, CANCEL)
        job = await store.jobs.get(name)
        assert (job.state, job.progress.step) == (end, 7)
    assert store.jobs._progress == {}


async def test_progress_is_seen_at_once_and_kept_by_the_next_transition(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    await store.datasets.create("a")
    await create(store)
    progress = Progress(step=5, num_steps=10, epoch=1, num_epochs=2, eta_s=3.5)
    decoding = replace(progress, activity=Activity(kind="DECODING", done=1, total=2))
    store.jobs.report_progress("j", decoding)
    assert (await store.jobs.get("j")).progress == decoding
    await store.jobs.transition("j", {"QUEUED"}, "STARTING")
    await store.jobs.set_resolved("j", {"image_size": 64})
    await store.close()
    store = Store.open(tmp_path)
    job = await store.jobs.get("j")
    assert (job.progress, job.settings) == (progress, {"image_size": 64})
    await store.close()


def num_rows(table: str, connection: sqlite3.Connection) -> Any:
    return connection.execute(f"SELECT count(*) FROM {table}").fetchone()


async def test_a_deleted_job_leaves_neither_rows_nor_files(store: Store) -> None:
    job = await create(store)
    await written(store, job, 10)
    with pytest.raises(FailedPrecondition, match="cancel it first"):
        await store.jobs.delete("j")
    await store.jobs.request("j", CANCEL)
    await store.jobs.delete("j")
    assert not store.checkpoints.directory(job.uid).parent.exists()
    for table in ("job", "event", "checkpoint", "trash"):
        count = await store.jobs._database.read(partial(num_rows, table))
        assert count == (0,), table
