"""Jobs get their trainers, lose them, and end as they should: real processes, a real store."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from manyview_server.link import PREFIX
from manyview_server.store.job_verbs import CANCEL, PAUSE, RESUME
from manyview_server.store.records import CheckedImage, Job
from manyview_server.store.store import Store
from manyview_server.supervise import attempt, growth
from manyview_server.supervise.attempt import Patience
from manyview_server.supervise.budget import CoreBudget
from manyview_server.supervise.jobs import JobSupervisor

QUICK = Patience(hello_s=8, silence_s=8, step_s=0.5, stop_s=0.5, exit_s=0.3, restart_s=0.01)
Supervise = Callable[..., Awaitable[JobSupervisor]]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path / "data", reserve_bytes=0)
    await opened.datasets.create("clothing")
    session = await opened.uploads.open("clothing", "first", b"")
    data = b"an image"
    image = CheckedImage(
        data=data, key="a", label="", sha256=hashlib.sha256(data).digest(), extension="jpg", width=1, height=1
    )
    await session.append(1, [image])
    yield opened
    await opened.close()


@pytest.fixture
async def supervise(store: Store, scripted: Any) -> AsyncIterator[Supervise]:
    running: list[JobSupervisor] = []

    async def start(trainer: Any = "normal", *, devices: int = 1, patience: Patience = QUICK) -> JobSupervisor:
        names = {f"cuda:{i}": 1 << 20 for i in range(devices)}
        supervisor = JobSupervisor(store, names, CoreBudget(2), command=scripted(trainer=trainer), patience=patience)
        running.append(supervisor)
        await supervisor.start()
        return supervisor

    yield start
    for supervisor in running:
        await supervisor.drain()
    assert not Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def frame(header: bytes) -> bytes:
    return PREFIX.pack(len(header), 0) + header


async def create(store: Store, name: str = "job", settings: dict[str, Any] | None = None) -> Job:
    return await store.jobs.create(name, "clothing", "moco", settings or {}, "1")


async def reach(store: Store, name: str, *states: str, timeout_s: float = 20.0) -> Job:
    async with asyncio.timeout(timeout_s):
        while (job := await store.jobs.get(name)).state not in states:
            assert not job.terminal, f"{job.state} {job.failure}"
            await asyncio.sleep(0.01)
    return job


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def history(store: Store, name: str) -> list[tuple[str, str]]:
    """State changes as (to, reason), other events but scalars as (kind, reason or step)."""
    found = []
    for event in await store.events.read(name, 0, 10_000):
        if event.kind == "state":
            found.append((event.payload["to"], event.payload["reason"]))
        elif event.kind != "scalars":
            told = event.payload
            found.append((event.kind, str(told.get("reason", told.get("to_step", event.step)))))
    return found


async def losses(store: Store, name: str) -> list[int]:
    await store.events.flush(name)
    return [event.step for event in await store.events.scalar_rows(name)]


async def test_a_job_is_trained_to_its_end(store, supervise):
    await create(store)
    await supervise({"steps": 3})
    job = await reach(store, "job", "SUCCEEDED")
    expected = ["QUEUED", "STARTING", "RUNNING", "checkpoint", "SUCCEEDED"]
    assert [what for what, _ in await history(store, "job")] == expected
    assert (job.attempt, job.latest_checkpoint, job.progress.step) == (1, 3, 3)
    assert job.progress.eta_s == 0, "nothing is left to do"
    assert await losses(store, "job") == [1, 2, 3]


async def test_jobs_of_one_device_run_one_after_the_other_in_their_order(store, supervise):
    supervisor = await supervise({"steps": 2, "step_s": 0.02})
    for name in ("a", "b", "c"):
        await create(store, name)
    supervisor.wake()
    jobs = [await reach(store, name, "SUCCEEDED") for name in ("a", "b", "c")]
    assert jobs[0].end_time <= jobs[1].start_time <= jobs[1].end_time <= jobs[2].start_time


async def test_two_devices_train_two_jobs_at_a_time(store, supervise):
    for name in ("a", "b"):
        await create(store, name)
    supervisor = await supervise({"steps": 1000, "step_s": 0.05}, devices=2)
    for name in ("a", "b"):
        await reach(store, name, "RUNNING")
    for name in ("a", "b"):
        await store.jobs.request(name, CANCEL)
    supervisor.wake()
    for name in ("a", "b"):
        await reach(store, name, "CANCELLED")


async def test_what_the_trainer_chose_is_merged_into_the_settings(store, supervise):
    await create(store, settings={"stem": "auto", "optimizer": {"learning_rate": None, "momentum": 0.9}})
    await supervise({"resolved": {"stem": "small", "optimizer": {"learning_rate": 0.06}}})
    job = await reach(store, "job", "SUCCEEDED")
    assert job.settings == {"stem": "small", "optimizer": {"learning_rate": 0.06, "momentum": 0.9}}


async def test_an_unreadable_image_is_marked(store, supervise):
    image_id = int((await store.datasets.snapshot("clothing")).array["image_id"][0])
    await create(store)
    await supervise({"unreadable_at": 0, "image_id": image_id})
    await reach(store, "job", "SUCCEEDED")
    (image,), _ = await store.datasets.images("clothing", ["UNREADABLE"], 10, "")
    assert (image.image_id, image.reason) == (image_id, "DECODE_FAILED")


async def test_a_failure_that_the_trainer_tells_is_the_job_s_and_is_not_retried(store, supervise):
    await create(store)
    await supervise({"fail": "NON_FINITE_LOSS"})
    job = await reach(store, "job", "FAILED")
    assert job.failure is not None
    assert (job.failure.reason, job.failure.message, job.failure.hint) == (
        "NON_FINITE_LOSS",
        "it is said",
        "do otherwise",
    )
    assert job.attempt == 1


async def test_a_killed_trainer_goes_on_from_its_newest_checkpoint(store, supervise):
    await create(store)
    await supervise([{"steps": 6, "checkpoint_every": 2, "die_at": 5}, {"steps": 6, "checkpoint_every": 2}])
    job = await reach(store, "job", "SUCCEEDED")
    told = await history(store, "job")
    assert ("RECOVERING", "TRAINER_DIED") in told
    assert ("rollback", "4") in told
    assert (job.attempt, job.restarts) == (2, 0)
    assert await losses(store, "job") == [1, 2, 3, 4, 5, 6], "each step once: the superseded one is hidden"


async def test_a_crash_loop_fails_after_three_restarts_without_a_checkpoint(store, supervise):
    await create(store)
    await supervise({"steps": 9, "die_at": 1})
    job = await reach(store, "job", "FAILED")
    assert job.failure is not None
    assert job.failure.reason == "CRASH_LOOP"
    assert "SIGKILL" in job.failure.message
    assert job.attempt == 4


async def test_new_checkpoints_renew_the_patience_with_crashes(store, supervise):
    await create(store)
    plans = [{"steps": 7, "checkpoint_every": 1, "die_at": step} for step in range(1, 6)]
    await supervise([*plans, {"steps": 7}])
    assert (await reach(store, "job", "SUCCEEDED")).attempt == 6


async def test_a_trainer_that_cannot_start_fails_the_job_with_that_reason(store, supervise):
    await create(store)
    await supervise({"die": "at once"})
    job = await reach(store, "job", "FAILED")
    assert job.failure is not None
    assert job.failure.reason == "WORKER_START"
    assert "no such library" not in job.failure.message, "what workers print is for the operator's log"


@pytest.mark.parametrize(
    ("plan", "patience"),
    [
        ({"silent_at": 2}, Patience(silence_s=2, restart_s=0.01)),
        ({"stuck_at": 2}, Patience(step_s=0.2, restart_s=0.01)),
        ({"garbage_at": 2, "garbage": "ff" * 12}, QUICK),
        ({"garbage_at": 2, "garbage": "02000000" + "00" * 8 + "5b5d"}, QUICK),
        ({"garbage_at": 2, "garbage": frame(b'{"type":"Hello","fields":[],"blobs":[]}').hex()}, QUICK),
        ({"garbage_at": 2, "garbage": frame(b"[" * 20_000).hex()}, QUICK),
        ({"no_hello": True}, Patience(hello_s=3, restart_s=0.01)),
    ],
    ids=["silent", "stuck", "huge frame", "no message", "no fields", "deep", "no hello"],
)
async def test_a_trainer_that_hangs_or_talks_nonsense_is_replaced(store, supervise, plan, patience):
    await create(store)
    await supervise([{"steps": 4, "checkpoint_every": 1, **plan}, {"steps": 4}], patience=patience)
    assert (await reach(store, "job", "SUCCEEDED")).attempt == 2
    told = dict(await history(store, "job"))
    hangs = "silent_at" in plan or "stuck_at" in plan
    assert told["RECOVERING"] == ("STALLED" if hangs else "WORKER_START" if "no_hello" in plan else "TRAINER_DIED")


async def test_a_trainer_killed_for_lack_of_memory_is_told_apart_from_other_kills(store, supervise, monkeypatch):
    kills = itertools.count()
    monkeypatch.setattr(attempt, "oom_kills", lambda: next(kills))
    await create(store)
    await supervise({"steps": 9, "die_at": 1})
    job = await reach(store, "job", "FAILED")
    assert job.failure is not None
    assert job.failure.reason == "HOST_OUT_OF_MEMORY"
    assert "batch_size" in job.failure.hint


async def test_a_job_whose_checkpoints_cannot_be_written_pauses_and_goes_on_when_it_is_resumed(store, supervise):
    await create(store)
    supervisor = await supervise([{"steps": 3, "checkpoint_every": 2, "fail": "CHECKPOINT_FAILED"}, {"steps": 4}])
    await reach(store, "job", "PAUSED")
    assert ("PAUSED", "CHECKPOINT_FAILED") in await history(store, "job")
    await store.jobs.request("job", RESUME)
    supervisor.wake()
    await reach(store, "job", "SUCCEEDED")
    assert await losses(store, "job") == [1, 2, 3, 4]


async def test_images_that_kill_the_decoder_are_found_out_and_left_out_and_cost_no_restart(store, supervise):
    image_ids = [image.image_id for image in (await store.datasets.images("clothing", [], 10))[0]]
    await create(store)
    await supervise({"steps": 2, "poison": image_ids})
    job = await reach(store, "job", "SUCCEEDED")
    told = await history(store, "job")
    assert told.count(("alert", "IMAGE_QUARANTINED")) == len(image_ids) == 1
    assert (job.attempt, job.restarts) == (3, 0), "one death in company, one alone"
    (noted,) = (await store.datasets.images("clothing", ["UNREADABLE"], 10))[0]
    assert (noted.image_id, noted.reason) == (image_ids[0], "DECODER_CRASHED")
    await create(store, "next")
    await supervise({"steps": 2, "poison": image_ids})
    assert (await reach(store, "next", "SUCCEEDED")).attempt == 1, "the next job knows"


async def add_images(store: Store, *numbers: int) -> None:
    session = await store.uploads.open("clothing", f"upload-{numbers[0]}", b"")
    images = []
    for number in numbers:
        data = f"image {number}".encode()
        sha256 = hashlib.sha256(data).digest()
        images.append(CheckedImage(data=data, key="", label="", sha256=sha256, extension="jpg", width=1, height=1))
    await session.append(1, images)


async def test_a_job_that_follows_waits_for_its_first_images_and_others_go_before_it(store, supervise, monkeypatch):
    monkeypatch.setattr(growth, "POLL_S", 0.02)
    await store.jobs.create("following", "clothing", "moco", {}, "1", min_images=3)
    await create(store, "other")
    await supervise({"steps": 2, "tells": True})
    await reach(store, "other", "SUCCEEDED")
    job = await store.jobs.get("following")
    assert (job.state, job.num_images) == ("QUEUED", 0)
    await add_images(store, 1, 2)
    job = await reach(store, "following", "SUCCEEDED")
    assert (job.num_images, await logged(store, "following")) == (3, ["follows True, 3 images, adopted [3]"])
    assert await logged(store, "other") == ["follows False, 1 images, adopted []"]


async def test_a_job_that_follows_hears_of_each_image_once_over_all_attempts(store, supervise, monkeypatch):
    monkeypatch.setattr(growth, "POLL_S", 0.02)
    await store.jobs.create("following", "clothing", "moco", {}, "1", min_images=1)
    slow = {"steps": 60, "step_s": 0.02, "tells": True, "checkpoint_every": 20}
    supervisor = await supervise([slow | {"die_at": 30}, slow], patience=replace(QUICK, step_s=5))
    await reach(store, "following", "RUNNING")
    await add_images(store, 1, 2)
    await sizes_reach(store, 3)
    await reach(store, "following", "RECOVERING")
    await add_images(store, 3)
    await sizes_reach(store, 4)
    job = await reach(store, "following", "SUCCEEDED")
    assert job.num_images == 4
    told = await logged(store, "following")
    assert told[0] == "follows True, 1 images, adopted [1]"
    assert told[1].startswith("follows True, 3 images"), "what an attempt adopted the next one has from its start"
    assert [event.payload["num_added"] for event in await snapshots(store)] == [1, 2, 1]
    await supervisor.drain()


async def snapshots(store: Store) -> list[Any]:
    return [event for event in await store.events.read("following", 0, 1000) if event.kind == "snapshot"]


async def sizes_reach(store: Store, num_images: int) -> None:
    async with asyncio.timeout(10):
        while (await store.jobs.get("following")).num_images < num_images:
            await asyncio.sleep(0.01)


async def logged(store: Store, name: str) -> list[str]:
    return [event.payload["text"] for event in await store.events.read(name, 0, 1000) if event.kind == "log"]


async def test_a_trainer_that_does_not_leave_after_its_last_word_is_killed(store, supervise):
    await create(store)
    await supervise({"stay": True})
    await reach(store, "job", "SUCCEEDED")


@pytest.mark.parametrize(
    ("plan", "when"),
    [
        ({"steps": 1000, "step_s": 0.05}, "QUEUED"),
        ({"steps": 1000, "step_s": 0.05}, "STARTING"),
        ({"steps": 1000, "step_s": 0.05}, "RUNNING"),
        ({"before_start_s": 600}, "STARTING"),
        ({"steps": 1000, "step_s": 0.05, "ignore_stop": True}, "RUNNING"),
        ({"steps": 1000, "silent_at": 2}, "RUNNING"),
        ({"steps": 1000, "die_at": 0}, "RECOVERING"),
    ],
    ids=["queued", "starting", "running", "loading", "deaf", "frozen", "recovering"],
)
async def test_a_job_is_cancelled_at_any_moment(store, supervise, plan, when):
    supervisor = await supervise(plan, patience=Patience(stop_s=0.5, exit_s=0.3, restart_s=600))
    await create(store)
    if when != "QUEUED":
        supervisor.wake()
    await reach(store, "job", when)
    await store.jobs.request("job", CANCEL)
    supervisor.wake()
    await reach(store, "job", "CANCELLED", timeout_s=15)
    await asyncio.sleep(0.05)
    assert (await store.jobs.get("job")).state == "CANCELLED"


async def test_a_cancelled_running_job_has_a_checkpoint_of_where_it_stopped(store, supervise):
    supervisor = await supervise({"steps": 1000, "step_s": 0.02})
    await create(store)
    supervisor.wake()
    await reach(store, "job", "RUNNING")
    await store.jobs.request("job", CANCEL)
    supervisor.wake()
    job = await reach(store, "job", "CANCELLED")
    assert job.latest_checkpoint >= 0


@pytest.mark.parametrize(
    ("plan", "when"),
    [
        ({"before_start_s": 600}, "STARTING"),
        ({"steps": 1000, "step_s": 0.02}, "RUNNING"),
        ({"steps": 1000, "step_s": 0.02, "ignore_stop": True}, "RUNNING"),
        ({"steps": 1000, "silent_at": 2}, "RUNNING"),
        ({"steps": 1000, "die_at": 0}, "RECOVERING"),
    ],
    ids=["loading", "running", "deaf", "frozen", "recovering"],
)
async def test_a_job_is_paused_at_any_moment_leaves_its_device_and_goes_on_when_resumed(
    store, supervise, tmp_path, plan, when
):
    supervisor = await supervise([plan, "normal"], patience=Patience(stop_s=0.5, exit_s=0.3, restart_s=600))
    await create(store)
    supervisor.wake()
    await reach(store, "job", when)
    await until(lambda: (tmp_path / "starts").exists())
    await store.jobs.request("job", PAUSE)
    supervisor.wake()
    await reach(store, "job", "PAUSED", timeout_s=15)
    await create(store, "next")
    supervisor.wake()
    await reach(store, "next", "SUCCEEDED")
    assert (await store.jobs.get("job")).state == "PAUSED"
    await store.jobs.request("job", RESUME)
    supervisor.wake()
    ended = await reach(store, "job", "SUCCEEDED")
    assert (ended.attempt, ended.restarts) == (2, 0)


async def test_a_running_job_pauses_with_a_checkpoint_and_goes_on_from_it(store, supervise):
    supervisor = await supervise([{"steps": 1000, "step_s": 0.02}, {"steps": 1002}])
    await create(store)
    supervisor.wake()
    async with asyncio.timeout(10):
        while (await store.jobs.get("job")).progress.step < 2:
            await asyncio.sleep(0.01)
    await store.jobs.request("job", PAUSE)
    supervisor.wake()
    paused = await reach(store, "job", "PAUSED")
    assert paused.latest_checkpoint >= 2
    await store.jobs.request("job", RESUME)
    supervisor.wake()
    await reach(store, "job", "SUCCEEDED")
    assert ("rollback", str(paused.latest_checkpoint)) in await history(store, "job")
    assert await losses(store, "job") == list(range(1, 1003))


@pytest.mark.parametrize("hurry", [False, True])
async def test_a_long_step_is_waited_for_unless_the_server_drains(store, supervise, hurry):
    supervisor = await supervise(
        {"steps": 1000, "step_s": 0.02, "slow_at": 2, "slow_s": 2.0},
        patience=Patience(stop_s=0.3, exit_s=0.3, restart_s=0.01),
    )
    await create(store)
    supervisor.wake()
    async with asyncio.timeout(10):
        while (await store.jobs.get("job")).progress.step < 2:
            await asyncio.sleep(0.01)
    await asyncio.sleep(1.0)
    await store.jobs.request("job", PAUSE)
    supervisor.wake()
    if hurry:
        await asyncio.sleep(0.1)
        async with asyncio.timeout(0.8):
            await supervisor.drain()
    paused = await reach(store, "job", "PAUSED")
    assert paused.latest_checkpoint == (-1 if hurry else 2)


async def test_a_job_that_is_resumed_while_it_stops_goes_on_by_itself(store, supervise):
    supervisor = await supervise([{"steps": 1000, "step_s": 0.02, "ignore_stop": True}, "normal"])
    await create(store)
    supervisor.wake()
    await reach(store, "job", "RUNNING")
    await store.jobs.request("job", PAUSE)
    supervisor.wake()
    assert (await store.jobs.request("job", RESUME)).state == "PAUSING"
    await reach(store, "job", "SUCCEEDED")
    path = [what for what, _ in await history(store, "job")]
    assert path[path.index("PAUSING") :][:3] == ["PAUSING", "PAUSED", "QUEUED"]


async def test_a_pause_that_meets_the_last_step_ends_with_the_job(store, supervise):
    supervisor = await supervise({"steps": 3, "step_s": 0.05, "ignore_stop": True})
    await create(store)
    supervisor.wake()
    await reach(store, "job", "RUNNING")
    await store.jobs.request("job", PAUSE)
    supervisor.wake()
    await reach(store, "job", "SUCCEEDED")


async def test_a_drained_job_stays_unfinished_and_goes_on_at_the_next_start(store, supervise):
    await create(store)
    first = await supervise({"steps": 1000, "step_s": 0.02})
    await reach(store, "job", "RUNNING")
    await asyncio.sleep(0.1)
    await first.drain()
    job = await store.jobs.get("job")
    assert job.state == "RUNNING"
    assert job.latest_checkpoint > 0
    await supervise({"steps": job.latest_checkpoint + 2})
    ended = await reach(store, "job", "SUCCEEDED")
    told = await history(store, "job")
    assert ("RECOVERING", "TRAINER_LOST") in told
    assert ("rollback", str(job.latest_checkpoint)) in told
    assert (ended.attempt, ended.restarts) == (2, 0)
    assert await losses(store, "job") == list(range(1, job.latest_checkpoint + 3))


async def test_a_start_pauses_what_was_to_pause_and_leaves_alone_what_is_paused(store, supervise):
    for name in ("stopping", "paused", "resumed"):
        await create(store, name)
        await store.jobs.transition(name, {"QUEUED"}, "STARTING", attempt=1)
        await store.jobs.request(name, PAUSE)
    await store.jobs.transition("paused", {"PAUSING"}, "PAUSED")
    await store.jobs.request("resumed", RESUME)
    await supervise()
    assert (await reach(store, "resumed", "SUCCEEDED")).attempt == 2
    assert (await reach(store, "stopping", "PAUSED")).attempt == 1
    assert (await store.jobs.get("paused")).last_sequence == 4


@pytest.mark.parametrize("state", ["STARTING", "RUNNING", "RECOVERING", "CANCELLING"])
async def test_a_start_takes_up_every_unfinished_state(store, supervise, state):
    await create(store)
    await store.jobs.transition("job", {"QUEUED"}, "STARTING", attempt=1)
    if state != "STARTING":
        await store.jobs.transition("job", {"STARTING"}, "RUNNING" if state == "RUNNING" else state)
    await supervise()
    job = await reach(store, "job", "CANCELLED" if state == "CANCELLING" else "SUCCEEDED")
    assert job.attempt == (1 if state == "CANCELLING" else 2)


async def test_recovering_jobs_go_before_queued_ones(store, supervise):
    await create(store, "old")
    await create(store, "lost")
    await store.jobs.transition("lost", {"QUEUED"}, "STARTING", attempt=1)
    await supervise()
    old, lost = await reach(store, "old", "SUCCEEDED"), await reach(store, "lost", "SUCCEEDED")
    assert lost.end_time <= old.start_time


async def interrupted(store: Store, supervise: Supervise) -> Job:
    await create(store)
    first = await supervise({"steps": 1000, "step_s": 0.02, "checkpoint_every": 2})
    async with asyncio.timeout(10):
        while len(await store.jobs.checkpoints("job")) < 3:
            await asyncio.sleep(0.01)
    await first.drain()
    return await store.jobs.get("job")


async def test_a_corrupt_checkpoint_is_dropped_with_an_alert_and_the_one_before_is_taken(store, supervise):
    await interrupted(store, supervise)
    newest, second, *_ = await store.jobs.checkpoints("job")
    (Path(newest.directory) / "state.safetensors").write_bytes(b"stata")
    (Path(newest.directory).parent / "000000999-1").mkdir()
    await supervise({"steps": newest.step + 1})
    await reach(store, "job", "SUCCEEDED")
    told = await history(store, "job")
    assert ("alert", "CHECKPOINT_CORRUPT") in told
    assert ("rollback", str(second.step)) in told
    assert not (Path(newest.directory).parent / "000000999-1").exists(), "it was never registered"
    aside = Path(newest.directory).with_name(f".corrupt-{Path(newest.directory).name}")
    assert (aside / "state.safetensors").read_bytes() == b"stata", "it is kept for whoever wants to know"


async def test_a_job_without_any_good_checkpoint_fails_and_does_not_begin_again(store, supervise):
    await interrupted(store, supervise)
    for checkpoint in await store.jobs.checkpoints("job"):
        (Path(checkpoint.directory) / "MANIFEST.json").unlink()
    await supervise()
    job = await reach(store, "job", "FAILED")
    assert job.failure is not None
    assert job.failure.reason == "CHECKPOINT_CORRUPT"


async def test_old_checkpoints_are_dropped_but_for_those_that_an_answer_named(store, supervise):
    await create(store)
    await supervise({"steps": 30, "step_s": 0.02, "checkpoint_every": 1})
    async with asyncio.timeout(10):
        while not await store.jobs.checkpoints("job"):
            await asyncio.sleep(0.005)
    kept = (await store.jobs.checkpoint("job")).step
    await store.jobs.pin_checkpoint("job", kept)
    await reach(store, "job", "SUCCEEDED")
    left = await store.jobs.checkpoints("job")
    assert [checkpoint.step for checkpoint in left] == [30, 29, 28, kept]
    assert all(Path(checkpoint.directory).is_dir() for checkpoint in left)
