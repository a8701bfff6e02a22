"""Embedding goes through a process that may die, hang or fall behind: callers get an answer or a reason."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from manyview_server import messages as m
from manyview_server.errors import (
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    ResourceExhausted,
    Unavailable,
)
from manyview_server.supervise.budget import CoreBudget
from manyview_server.supervise.embedder import EmbedderLimits, EmbedderSupervisor

Make = Callable[..., EmbedderSupervisor]


@pytest.fixture
async def make(scripted: Any) -> AsyncIterator[Make]:
    made: list[EmbedderSupervisor] = []

    def make(behaviour: Any = "normal", budget: CoreBudget | None = None, **limits: Any) -> EmbedderSupervisor:
        limited = EmbedderLimits(**{"exit_s": 0.2, **limits})
        supervisor = EmbedderSupervisor(
            budget or CoreBudget(4), "cpu", command=scripted(embedder=behaviour), limits=limited
        )
        made.append(supervisor)
        return supervisor

    yield make
    for supervisor in made:
        await supervisor.close()
        assert supervisor.queued_images == 0
    assert not Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


async def embed(supervisor: EmbedderSupervisor, *images: bytes, time_left_s: float = 0.0) -> m.EmbedDone:
    return await supervisor.embed(
        images=images,
        model="backbones/resnet18",
        checkpoint_dir="",
        backbone="resnet18",
        weights_file="",
        output="backbone",
        l2_normalize=False,
        data_type="float32",
        time_left_s=time_left_s,
    )


def number(done: m.EmbedDone) -> int:
    return int.from_bytes(done.blobs[0], "little")


async def test_images_are_embedded_by_a_process_that_starts_with_the_first_request(make):
    supervisor = make()
    assert not Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    done = await embed(supervisor, b"12345", b"6")
    assert (done.shape, number(done)) == ((2, 1), 5)


async def test_concurrent_requests_share_one_process_and_get_their_own_answers(make):
    supervisor = make()
    answers = await asyncio.gather(*(embed(supervisor, b"x" * n) for n in range(10, 40)))
    assert [number(done) for done in answers] == list(range(10, 40))
    first, second = await embed(supervisor, b"pid"), await embed(supervisor, b"pid")
    assert number(first) == number(second)


async def test_an_error_that_the_embedder_tells_has_its_status(make):
    with pytest.raises(DataLoss, match="its hash differs") as caught:
        await embed(make(), b"corrupt")
    assert caught.value.reason == "CHECKPOINT_CORRUPT"


async def test_a_death_fails_the_requests_in_work_and_the_next_one_is_answered(make):
    supervisor = make()
    slow = asyncio.create_task(embed(supervisor, b"slow"))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as caught:
        await embed(supervisor, b"die")
    assert caught.value.reason == "EMBEDDER_RESTARTED"
    assert caught.value.retry_after_s > 0
    with pytest.raises(Unavailable):
        await slow
    assert number(await embed(supervisor, b"slow")) == 4


async def test_a_request_that_killed_it_twice_is_refused_and_its_neighbours_are_not(make):
    supervisor = make()
    await embed(supervisor, b"warm")
    together = await asyncio.gather(
        embed(supervisor, b"die"), embed(supervisor, b"slow 1"), embed(supervisor, b"slow 2"), return_exceptions=True
    )
    assert [type(answer) for answer in together] == [Unavailable] * 3
    again = await asyncio.gather(
        embed(supervisor, b"slow 1"), embed(supervisor, b"die"), embed(supervisor, b"new"), return_exceptions=True
    )
    assert isinstance(again[0], m.EmbedDone), "tried alone"
    assert isinstance(again[1], Unavailable)
    assert isinstance(again[2], m.EmbedDone) or again[2].reason == "EMBEDDER_RESTARTED"
    with pytest.raises(FailedPrecondition) as caught:
        await embed(supervisor, b"die")
    assert caught.value.reason == "EMBED_REQUEST_REFUSED"
    await asyncio.sleep(1.1)
    assert number(await embed(supervisor, b"slow 2")) == 6


async def test_an_embedder_that_cannot_start_is_tried_again_later_and_later(make):
    supervisor = make({"die": "at once"})
    waits = []
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            await embed(supervisor, b"x")
        waits.append(caught.value.retry_after_s)
    supervisor._not_before = 0.0
    with pytest.raises(Unavailable) as caught:
        await embed(supervisor, b"x")
    assert caught.value.retry_after_s > 1.5 > max(waits) - 0.5


async def test_a_process_that_never_says_hello_is_given_up(make):
    with pytest.raises(Unavailable):
        await embed(make("normal", hello_s=0.01), b"x")


async def test_one_that_answers_nobody_is_replaced(make):
    supervisor = make(silence_s=1.0)
    with pytest.raises(Unavailable):
        await embed(supervisor, b"hang")
    assert number(await embed(supervisor, b"x")) == 1


async def test_a_full_queue_is_told_with_when_to_come_again(make):
    supervisor = make(max_images=2, max_bytes=1000)
    waiting = asyncio.create_task(embed(supervisor, b"slow", b"slow"))
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted) as caught:
        await embed(supervisor, b"x")
    assert (caught.value.reason, caught.value.retry_after_s) == ("EMBED_QUEUE_FULL", 1.0)
    await waiting
    with pytest.raises(ResourceExhausted):
        await embed(supervisor, b"x" * 1001)
    assert number(await embed(supervisor, b"x" * 999)) == 999


async def test_a_deadline_ends_the_wait_and_cancels_the_request(make):
    supervisor = make()
    await embed(supervisor, b"warm")
    with pytest.raises(DeadlineExceeded) as caught:
        await embed(supervisor, b"slow", time_left_s=0.05)
    assert caught.value.reason == "EMBED_DEADLINE"
    assert supervisor.queued_images == 0
    await asyncio.sleep(0.05)
    assert number(await embed(supervisor, b"cancelled")) == 1


async def test_a_caller_that_gives_up_during_the_start_does_not_end_it(make):
    supervisor = make()
    with pytest.raises(DeadlineExceeded):
        await embed(supervisor, b"x", time_left_s=0.02)
    assert number(await embed(supervisor, b"xy")) == 2


async def test_a_cancelled_call_is_told_to_the_embedder(make):
    supervisor = make()
    await embed(supervisor, b"warm")
    call = asyncio.create_task(embed(supervisor, b"slow"))
    await asyncio.sleep(0.1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.sleep(0.05)
    assert number(await embed(supervisor, b"cancelled")) == 1


async def test_it_gives_up_cores_while_a_trainer_runs(make):
    budget = CoreBudget(4)
    supervisor = make(budget=budget)
    assert number(await embed(supervisor, b"threads")) == 4
    budget.trainer_started()
    await asyncio.sleep(0.05)
    assert number(await embed(supervisor, b"threads")) == 2
    budget.trainer_ended()
    await asyncio.sleep(0.05)
    assert number(await embed(supervisor, b"threads")) == 4


async def test_closing_fails_what_is_in_work_and_what_comes_later(make):
    supervisor = make()
    await embed(supervisor, b"warm")
    call = asyncio.create_task(embed(supervisor, b"hang"))
    await asyncio.sleep(0.1)
    await supervisor.close()
    for late in (call, embed(supervisor, b"x")):
        with pytest.raises(Unavailable) as caught:
            await late
        assert caught.value.reason == "DRAINING"


async def test_closing_while_it_starts_leaves_no_process(make):
    supervisor = make()
    call = asyncio.create_task(embed(supervisor, b"x"))
    await asyncio.sleep(0.03)
    await supervisor.close()
    with pytest.raises(Unavailable):
        await call
