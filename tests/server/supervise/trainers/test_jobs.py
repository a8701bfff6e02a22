"""Jobs get their trainers, are paused, resumed and cancelled, and end as they should: real processes, a real store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from manyview_server.link.decode_notes import OUT_OF_MEMORY
from manyview_server.store.event_payloads import StateChange
from manyview_server.store.jobs.job_verbs import CANCEL, PAUSE, RESUME
from manyview_server.store.records import Activity
from manyview_server.supervise.trainers.attempt import Patience
from support.service.supervised import create, history, losses, reach, until


async def test_a_job_is_trained_to_its_end(store: Any, supervise: Any) -> None:
    await create(store)
    await supervise({"steps": 3})
    job = await reach(store, "job", "SUCCEEDED")
    expected = ["QUEUED", "STARTING", "RUNNING", "checkpoint", "SUCCEEDED"]
    assert [what for what, _ in await history(store, "job")] == expected
    assert (job.attempt, job.latest_checkpoint, job.progress.step) == (1, 3, 3)
    assert job.progress.eta_s == 0, "nothing is left to do"
    assert await losses(store, "job") == [1, 2, 3]


async def test_jobs_of_one_device_run_one_after_the_other_in_their_order(store: Any, supervise: Any) -> None:
    supervisor = await supervise({"steps": 2, "step_s": 0.02})
    for name in ("a", "b", "c"):
        await create(store, name)
    supervisor.wake()
    jobs = [await reach(store, name, "SUCCEEDED") for name in ("a", "b", "c")]
    assert jobs[0].end_time <= jobs[1].start_time <= jobs[1].end_time <= jobs[2].start_time


async def test_two_devices_train_two_jobs_at_a_time(store: Any, supervise: Any) -> None:
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


async def test_what_the_trainer_chose_is_merged_into_the_settings(store: Any, supervise: Any) -> None:
    await create(store, settings={"stem": "auto", "optimizer": {"learning_rate": None, "momentum": 0.9}})
    await supervise({"resolved": {"stem": "small", "optimizer": {"learning_rate": 0.06}}})
    job = await reach(store, "job", "SUCCEEDED")
    assert job.settings == {"stem": "small", "optimizer": {"learning_rate": 0.06, "momentum": 0.9}}


async def test_an_unreadable_image_is_marked(store: Any, supervise: Any) -> None:
    image_id = int((await store.datasets.snapshot("clothing")).rows.all()["image_id"][0])
    await create(store)
    await supervise({"unreadable_at": 0, "image_id": image_id})
    await reach(store, "job", "SUCCEEDED")
    (image,), _ = await store.datasets.images("clothing", ["UNREADABLE"], 10, "")
    assert (image.image_id, image.reason) == (image_id, "DECODE_FAILED")


async def test_an_image_for_which_there_was_no_memory_is_not_marked(store: Any, supervise: Any) -> None:
    image_id = int((await store.datasets.snapshot("clothing")).rows.all()["image_id"][0])
    await create(store)
    await supervise({"unreadable_at": 0, "image_id": image_id, "reason": OUT_OF_MEMORY})
    await reach(store, "job", "SUCCEEDED")
    assert (await store.datasets.get("clothing")).num_unreadable == 0


async def test_a_failure_that_the_trainer_tells_is_the_job_s_and_is_not_retried(store: Any, supervise: Any) -> None:
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


async def test_a_job_that_finds_no_room_on_the_disk_pauses_and_goes_on_when_it_is_resumed(
    store: Any, supervise: Any
) -> None:
    supervisor = await supervise([{"fail": "CHECKPOINT_FAILED"}, "normal"])
    await create(store)
    supervisor.wake()
    job = await reach(store, "job", "PAUSED")
    assert (job.desired, job.attempt, job.restarts) == ("pause", 1, 0)
    found = [event for event in (await store.events.read("job", 1, 100)) if event.kind == "state"][-1]
    message = "it is said. do otherwise"
    reason = "CHECKPOINT_FAILED"
    assert found.payload == StateChange(from_state="PAUSING", to_state="PAUSED", reason=reason, message=message)
    await store.jobs.request("job", RESUME)
    supervisor.wake()
    assert (await reach(store, "job", "SUCCEEDED")).attempt == 2


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
async def test_a_job_is_cancelled_at_any_moment(store: Any, supervise: Any, plan: dict[str, Any], when: str) -> None:
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


async def test_a_cancelled_running_job_has_a_checkpoint_of_where_it_stopped(store: Any, supervise: Any) -> None:
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
    store: Any, supervise: Any, tmp_path: Path, plan: dict[str, Any], when: str
) -> None:
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


async def test_a_running_job_pauses_with_a_checkpoint_and_goes_on_from_it(store: Any, supervise: Any) -> None:
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


async def test_a_starting_job_says_how_many_images_are_decoded_and_keeps_no_count_of_it(
    store: Any, supervise: Any
) -> None:
    patience = Patience(step_s=60, stop_s=0.3, exit_s=0.3, restart_s=0.01)
    supervisor = await supervise({"decoding": [1200, 3068], "before_start_s": 1.0}, patience=patience)
    await create(store)
    supervisor.wake()
    seen = set()
    async with asyncio.timeout(20):
        while not (job := await store.jobs.get("job")).terminal:
            seen.add((job.state, job.progress.activity))
            await asyncio.sleep(0.005)
    assert ("STARTING", Activity(kind="STARTING_WORKER")) in seen
    assert ("STARTING", Activity(kind="DECODING", done=1200, total=3068)) in seen
    assert job.state == "SUCCEEDED"
    async with asyncio.timeout(10):
        while (await store.jobs.get("job")).progress.activity != Activity():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("hurry", [False, True])
async def test_a_long_step_is_waited_for_unless_the_server_drains(store: Any, supervise: Any, hurry: bool) -> None:
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


async def test_a_job_that_is_resumed_while_it_stops_goes_on_by_itself(store: Any, supervise: Any) -> None:
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


async def test_a_pause_that_meets_the_last_step_ends_with_the_job(store: Any, supervise: Any) -> None:
    supervisor = await supervise({"steps": 3, "step_s": 0.05, "ignore_stop": True})
    await create(store)
    supervisor.wake()
    await reach(store, "job", "RUNNING")
    await store.jobs.request("job", PAUSE)
    supervisor.wake()
    await reach(store, "job", "SUCCEEDED")


async def test_a_drained_job_stays_unfinished_and_goes_on_at_the_next_start(store: Any, supervise: Any) -> None:
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
    found = await history(store, "job")
    assert ("RECOVERING", "TRAINER_LOST") in found
    assert ("rollback", str(job.latest_checkpoint)) in found
    assert (ended.attempt, ended.restarts) == (2, 0)
    assert await losses(store, "job") == list(range(1, job.latest_checkpoint + 3))


async def test_a_start_pauses_what_was_to_pause_and_leaves_alone_what_is_paused(store: Any, supervise: Any) -> None:
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
async def test_a_start_takes_up_every_unfinished_state(store: Any, supervise: Any, state: str) -> None:
    await create(store)
    await store.jobs.transition("job", {"QUEUED"}, "STARTING", attempt=1)
    if state != "STARTING":
        await store.jobs.transition("job", {"STARTING"}, "RUNNING" if state == "RUNNING" else state)
    await supervise()
    job = await reach(store, "job", "CANCELLED" if state == "CANCELLING" else "SUCCEEDED")
    assert job.attempt == (1 if state == "CANCELLING" else 2)


async def test_recovering_jobs_go_before_queued_ones(store: Any, supervise: Any) -> None:
    await create(store, "old")
    await create(store, "lost")
    await store.jobs.transition("lost", {"QUEUED"}, "STARTING", attempt=1)
    await supervise()
    old, lost = await reach(store, "old", "SUCCEEDED"), await reach(store, "lost", "SUCCEEDED")
    assert lost.end_time <= old.start_time
