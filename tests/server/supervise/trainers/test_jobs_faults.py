"""Jobs lose their trainers, their checkpoints and their memory, and resume or fail as they should."""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from manyview_server.link.frames import PREFIX
from manyview_server.store.jobs.job_verbs import RESUME
from manyview_server.store.records import Job
from manyview_server.store.store import Store
from manyview_server.supervise.trainers import attempt
from manyview_server.supervise.trainers.attempt import Patience
from support.service.supervised import QUICK, Supervise, create, history, losses, reach

PROGRESS_OF_A_KIND = json.dumps(
    {
        "type": "Heartbeat",
        "fields": {
            **{"stage": "training", "step": 3, "num_steps": 4, "epoch": 0, "num_epochs": 1, "rss_bytes": 1, "done": 0},
            "eta_s": "soon",
        },
        "blobs": [],
    }
).encode()


def frame(header: bytes) -> bytes:
    return PREFIX.pack(len(header), 0) + header


async def test_a_killed_trainer_goes_on_from_its_newest_checkpoint(store: Store, supervise: Supervise) -> None:
    await create(store)
    await supervise([{"steps": 6, "checkpoint_every": 2, "die_at": 5}, {"steps": 6, "checkpoint_every": 2}])
    job = await reach(store, "job", "SUCCEEDED")
    events = await history(store, "job")
    assert ("RECOVERING", "TRAINER_DIED") in events
    assert ("rollback", "4") in events
    assert (job.attempt, job.restarts) == (2, 0)
    assert await losses(store, "job") == [1, 2, 3, 4, 5, 6], "each step once: the superseded one is hidden"


async def test_a_crash_loop_fails_after_three_restarts_without_a_checkpoint(store: Store, supervise: Supervise) -> None:
    await create(store)
    await supervise({"steps": 9, "die_at": 1})
    job = await reach(store, "job", "FAILED")
    assert job.failure is not None
    assert job.failure.reason == "CRASH_LOOP"
    assert "SIGKILL" in job.failure.message
    assert job.attempt == 4


async def test_new_checkpoints_renew_the_patience_with_crashes(store: Store, supervise: Supervise) -> None:
    await create(store)
    plans = [{"steps": 7, "checkpoint_every": 1, "die_at": step} for step in range(1, 6)]
    await supervise([*plans, {"steps": 7}])
    assert (await reach(store, "job", "SUCCEEDED")).attempt == 6


async def test_a_trainer_that_cannot_start_fails_the_job_with_that_reason(store: Store, supervise: Supervise) -> None:
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
        ({"garbage_at": 2, "garbage": frame(PROGRESS_OF_A_KIND).hex()}, QUICK),
        ({"no_hello": True}, Patience(hello_s=3, restart_s=0.01)),
        ({"no_read": True}, Patience(silence_s=2, restart_s=0.01)),
    ],
    ids=["silent", "stuck", "huge frame", "no message", "no fields", "deep", "wrong type", "no hello", "no read"],
)
async def test_a_trainer_that_hangs_or_talks_nonsense_is_replaced(
    store: Store, supervise: Supervise, plan: dict[str, Any], patience: Any
) -> None:
    # More than the socket between them holds: a trainer that does not read holds the front up.
    await create(store, settings={"padding": "x" * 800_000})
    await supervise([{"steps": 4, "checkpoint_every": 1, **plan}, {"steps": 4}], patience=patience)
    assert (await reach(store, "job", "SUCCEEDED")).attempt == 2
    events = dict(await history(store, "job"))
    hangs = "silent_at" in plan or "stuck_at" in plan
    assert events["RECOVERING"] == (
        "STALLED" if hangs else "WORKER_START" if plan.keys() & {"no_hello", "no_read"} else "TRAINER_DIED"
    )


async def test_a_trainer_that_sends_without_end_holds_nobody_up(store: Store, supervise: Supervise) -> None:
    """The largest messages that there may be, then what is none."""
    await create(store)
    await supervise([{"steps": 4, "flood_at": 1}, {"steps": 4}])
    stalls, job = [], await store.jobs.get("job")
    async with asyncio.timeout(20):
        while job.state != "SUCCEEDED":
            began = asyncio.get_running_loop().time()
            await asyncio.sleep(0.005)
            stalls.append(asyncio.get_running_loop().time() - began)
            job = await store.jobs.get("job")
    assert job.attempt == 2
    assert max(stalls) < 0.5


async def test_a_trainer_killed_for_lack_of_memory_is_told_apart_from_other_kills(
    store: Store, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = itertools.count()
    monkeypatch.setattr(attempt, "oom_kills", lambda: next(kills))
    await create(store)
    await supervise({"steps": 9, "die_at": 1})
    job = await reach(store, "job", "FAILED")
    assert job.failure is not None
    assert job.failure.reason == "HOST_OUT_OF_MEMORY"
    assert "batch_size" in job.failure.hint


async def test_a_job_whose_checkpoints_cannot_be_written_pauses_and_goes_on_when_it_is_resumed(
    store: Store, supervise: Supervise
) -> None:
    await create(store)
    supervisor = await supervise([{"steps": 3, "checkpoint_every": 2, "fail": "CHECKPOINT_FAILED"}, {"steps": 4}])
    await reach(store, "job", "PAUSED")
    assert ("PAUSED", "CHECKPOINT_FAILED") in await history(store, "job")
    await store.jobs.request("job", RESUME)
    supervisor.wake()
    await reach(store, "job", "SUCCEEDED")
    assert await losses(store, "job") == [1, 2, 3, 4]


async def test_images_that_kill_the_decoder_are_found_out_and_left_out_and_cost_no_restart(
    store: Store, supervise: Supervise
) -> None:
    image_ids = [image.image_id for image in (await store.datasets.images("clothing", [], 10))[0]]
    await create(store)
    await supervise({"steps": 2, "crashing": image_ids})
    job = await reach(store, "job", "SUCCEEDED")
    events = await history(store, "job")
    assert events.count(("alert", "IMAGE_QUARANTINED")) == len(image_ids) == 1
    assert (job.attempt, job.restarts) == (3, 0), "one death in company, one alone"
    (noted,) = (await store.datasets.images("clothing", ["UNREADABLE"], 10))[0]
    assert (noted.image_id, noted.reason) == (image_ids[0], "DECODER_CRASHED")
    await create(store, "next")
    await supervise({"steps": 2, "crashing": image_ids})
    assert (await reach(store, "next", "SUCCEEDED")).attempt == 1, "the next job knows"


async def test_an_image_that_takes_too_long_is_left_out_and_costs_neither_restart_nor_suspicion(
    store: Store, supervise: Supervise
) -> None:
    image_ids = [image.image_id for image in (await store.datasets.images("clothing", [], 10))[0]]
    await create(store)
    await supervise({"steps": 2, "too_slow": image_ids}, patience=replace(QUICK, decode_cpu_s=0.3))
    job = await reach(store, "job", "SUCCEEDED")
    assert (job.attempt, job.restarts) == (2, 0)
    events = await history(store, "job")
    assert events.count(("alert", "IMAGE_QUARANTINED")) == len(image_ids) == 1
    assert ("RECOVERING", "DECODE_TOO_SLOW") in events
    (noted,) = (await store.datasets.images("clothing", ["UNREADABLE"], 10))[0]
    assert (noted.image_id, noted.reason) == (image_ids[0], "DECODE_TOO_SLOW")
    await create(store, "next")
    await supervise({"steps": 2, "too_slow": image_ids}, patience=replace(QUICK, decode_cpu_s=0.3))
    assert (await reach(store, "next", "SUCCEEDED")).attempt == 1, "the next job knows"


async def test_an_image_that_was_unreadable_for_another_reason_is_quarantined_all_the_same(
    store: Store, supervise: Supervise
) -> None:
    """Otherwise the trainer would meet it again and again."""
    (image,) = (await store.datasets.images("clothing", [], 10))[0]
    dataset = await store.datasets.get("clothing")
    await store.datasets.mark_unreadable(dataset.uid, image.image_id, "DECODE_OUT_OF_MEMORY", "there was none")
    await create(store)
    await supervise({"steps": 2, "too_slow": [image.image_id]}, patience=replace(QUICK, decode_cpu_s=0.3))
    assert (await reach(store, "job", "SUCCEEDED")).attempt == 2
    (noted,) = (await store.datasets.images("clothing", ["UNREADABLE"], 10))[0]
    assert noted.reason == "DECODE_TOO_SLOW"
    assert (await store.datasets.get("clothing")).num_unreadable == 1


async def test_a_trainer_that_does_not_leave_after_its_last_word_is_killed(store: Store, supervise: Supervise) -> None:
    await create(store)
    await supervise({"stay": True})
    await reach(store, "job", "SUCCEEDED")


async def interrupted(store: Store, supervise: Supervise) -> Job:
    await create(store)
    first = await supervise({"steps": 1000, "step_s": 0.02, "checkpoint_every": 2})
    async with asyncio.timeout(10):
        while len(await store.checkpoints.list("job")) < 3:
            await asyncio.sleep(0.01)
    await first.drain()
    return await store.jobs.get("job")


async def test_a_corrupt_checkpoint_is_dropped_with_an_alert_and_the_one_before_is_taken(
    store: Store, supervise: Supervise
) -> None:
    await interrupted(store, supervise)
    newest, second, *_ = await store.checkpoints.list("job")
    (Path(newest.directory) / "state.safetensors").write_bytes(b"stata")
    (Path(newest.directory).parent / "000000999-1").mkdir()
    await supervise({"steps": newest.step + 1})
    await reach(store, "job", "SUCCEEDED")
    events = await history(store, "job")
    assert ("alert", "CHECKPOINT_CORRUPT") in events
    assert ("rollback", str(second.step)) in events
    assert not (Path(newest.directory).parent / "000000999-1").exists(), "it was never registered"
    aside = Path(newest.directory).with_name(f".corrupt-{Path(newest.directory).name}")
    assert (aside / "state.safetensors").read_bytes() == b"stata", "it is kept for people who want to look at it"


async def test_a_job_without_any_good_checkpoint_fails_and_does_not_begin_again(
    store: Store, supervise: Supervise
) -> None:
    await interrupted(store, supervise)
    for checkpoint in await store.checkpoints.list("job"):
        (Path(checkpoint.directory) / "MANIFEST.json").unlink()
    await supervise()
    job = await reach(store, "job", "FAILED")
    assert job.failure is not None
    assert job.failure.reason == "CHECKPOINT_CORRUPT"


async def test_old_checkpoints_are_dropped_but_for_those_that_an_answer_named(
    store: Store, supervise: Supervise
) -> None:
    await create(store)
    await supervise({"steps": 30, "step_s": 0.02, "checkpoint_every": 1})
    async with asyncio.timeout(10):
        while not await store.checkpoints.list("job"):
            await asyncio.sleep(0.005)
    kept = (await store.checkpoints.get("job")).step
    await store.checkpoints.pin("job", kept)
    await reach(store, "job", "SUCCEEDED")
    left = await store.checkpoints.list("job")
    assert [checkpoint.step for checkpoint in left] == [30, 29, 28, kept]
    assert all(Path(checkpoint.directory).is_dir() for checkpoint in left)


async def test_a_job_whose_settings_do_not_fit_into_a_message_fails_once_and_names_them(
    store: Store, supervise: Supervise
) -> None:
    await create(store, settings={"evaluation": {"knn_more": [{"k": 20, "temperature": 0.1}] * 40_000}})
    await supervise()
    job = await reach(store, "job", "FAILED")
    assert job.failure is not None
    assert (job.failure.reason, job.attempt) == ("MESSAGE_TOO_LARGE", 1)
    assert "evaluation.knn_more has 40,000 entries" in job.failure.message
    assert "1,048,576" in job.failure.message
    assert job.failure.hint
