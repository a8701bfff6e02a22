"""Embedding goes through a process that may die, hang or fall behind: callers get an answer or a reason."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from manyview_server.errors import (
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    ResourceExhausted,
    Unavailable,
)
from manyview_server.messages.embedding import EmbedDone, EmbedRecipe, ModelKey
from manyview_server.supervise.cores import CoreBudget
from manyview_server.supervise.embedders.embedder import EmbedderLimits, EmbedderSupervisor
from manyview_server.supervise.embedders.embedder_process import EmbedderProcess
from manyview_server.supervise.process import WorkerProcess
from manyview_server.supervise.slow_images import content_id
from support.learning.forked import children

Make = Callable[..., EmbedderSupervisor]

MODEL = ModelKey(name="backbones/resnet18", checkpoint_dir="", backbone="resnet18", weights_file="", output="backbone")
RECIPE = EmbedRecipe(model=MODEL)


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
        assert supervisor._queued_images == 0
    assert not children()


async def embed(supervisor: EmbedderSupervisor, *images: bytes, time_left_s: float = 0.0) -> EmbedDone:
    return await supervisor.embed(RECIPE, images, time_left_s=time_left_s)


def running(supervisor: EmbedderSupervisor) -> EmbedderProcess:
    assert supervisor._running is not None
    return supervisor._running


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def number(done: EmbedDone) -> int:
    """Return the number of the first image."""
    return int.from_bytes(done.blobs[0][:4], "little")


async def test_images_are_embedded_by_a_process_that_starts_with_the_first_request(make: Make) -> None:
    supervisor = make()
    assert not children()
    done = await embed(supervisor, b"12345", b"6")
    assert (done.shape, number(done)) == ((2, 1), 5)


async def without_descriptors(*_: object, **__: object) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_a_process_that_finds_no_descriptor_reports_that_and_starts_when_there_is_one(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = make()
    with monkeypatch.context() as patch:
        patch.setattr(WorkerProcess, "start", without_descriptors)
        with pytest.raises(ResourceExhausted) as caught:
            await embed(supervisor, b"12345")
    assert (caught.value.reason, caught.value.retry_after_s > 0) == ("TOO_MANY_OPEN_FILES", True)
    supervisor._backoff.not_before = 0.0
    assert number(await embed(supervisor, b"12345")) == 5


async def test_concurrent_requests_share_one_process_and_get_their_own_answers(make: Make) -> None:
    supervisor = make()
    answers = await asyncio.gather(*(embed(supervisor, b"x" * n) for n in range(10, 40)))
    assert [number(done) for done in answers] == list(range(10, 40))
    first, second = await embed(supervisor, b"pid"), await embed(supervisor, b"pid")
    assert number(first) == number(second)


async def test_an_error_that_the_embedder_tells_has_its_status(make: Make) -> None:
    with pytest.raises(DataLoss, match="its hash differs") as caught:
        await embed(make(), b"corrupt")
    assert caught.value.reason == "CHECKPOINT_CORRUPT"


async def test_a_death_fails_the_requests_in_work_and_the_next_one_is_answered(make: Make) -> None:
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


async def test_a_request_that_killed_it_twice_is_refused_and_its_neighbors_are_not(make: Make) -> None:
    supervisor = make()
    await embed(supervisor, b"warm")
    together = await asyncio.gather(
        embed(supervisor, b"die"), embed(supervisor, b"slow 1"), embed(supervisor, b"slow 2"), return_exceptions=True
    )
    assert [type(answer) for answer in together] == [Unavailable] * 3
    again = await asyncio.gather(
        embed(supervisor, b"slow 1"), embed(supervisor, b"die"), embed(supervisor, b"new"), return_exceptions=True
    )
    assert isinstance(again[0], EmbedDone), "tried alone"
    assert isinstance(again[1], Unavailable)
    assert isinstance(again[2], EmbedDone) or getattr(again[2], "reason", "") == "EMBEDDER_RESTARTED"
    with pytest.raises(FailedPrecondition) as caught:
        await embed(supervisor, b"die")
    assert caught.value.reason == "EMBED_REQUEST_REFUSED"
    await asyncio.sleep(1.1)
    assert number(await embed(supervisor, b"slow 2")) == 6


async def test_an_embedder_that_cannot_start_is_tried_again_later_and_later(make: Make) -> None:
    supervisor = make({"die": "at once"})
    waits = []
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            await embed(supervisor, b"x")
        waits.append(caught.value.retry_after_s)
    supervisor._backoff.not_before = 0.0
    with pytest.raises(Unavailable) as caught:
        await embed(supervisor, b"x")
    assert caught.value.retry_after_s > 1.5 > max(waits) - 0.5


async def test_a_process_that_never_says_hello_is_given_up(make: Make) -> None:
    with pytest.raises(Unavailable):
        await embed(make({"no_hello": True}, hello_s=0.3), b"x")


async def test_one_that_answers_nobody_is_replaced(make: Make) -> None:
    supervisor = make(silence_s=1.0)
    with pytest.raises(Unavailable):
        await embed(supervisor, b"hang")
    assert number(await embed(supervisor, b"x")) == 1


async def test_an_image_that_takes_too_long_fails_in_its_own_row_and_no_other_request_fails(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = make(decode_cpu_s=0.3)
    first = number(await embed(supervisor, b"pid"))
    slow = asyncio.create_task(embed(supervisor, b"burn", b"abc"))
    await asyncio.sleep(0.1)
    others = [asyncio.create_task(embed(supervisor, b"hang" if n == 3 else b"x" * n)) for n in range(3, 6)]
    done = await slow
    assert [(error.row, error.reason) for error in done.errors] == [(0, "DECODE_TOO_SLOW")]
    assert done.shape == (2, 1)
    others[0].cancel()
    assert [number(await other) for other in others[1:]] == [4, 5]
    assert number(await embed(supervisor, b"pid")) != first, "the process was replaced"
    assert (supervisor._backoff.num_deaths, supervisor._crashing._known) == (0, {}), "and that counts as no death"
    (record,) = [record for record in caplog.records if "too long to decode" in record.message]
    assert vars(record)["image"] == f"{content_id(b'burn'):016x}"


async def test_an_innocent_request_that_waits_beside_a_slow_image_is_asked_again(make: Make) -> None:
    supervisor = make(decode_cpu_s=0.3)
    await embed(supervisor, b"warm")
    slow = asyncio.create_task(embed(supervisor, b"burn"))
    # It hangs without a note for as long as the process lives, and is never a suspect.
    waits = asyncio.create_task(embed(supervisor, b"hang"))
    assert (await slow).errors[0].reason == "DECODE_TOO_SLOW"
    await asyncio.sleep(0.2)
    assert not waits.done()
    assert supervisor._crashing._known == {}
    waits.cancel()


async def test_an_image_whose_caller_has_gone_is_found_and_costs_no_second_process(make: Make) -> None:
    supervisor = make(decode_cpu_s=1.0)
    first = number(await embed(supervisor, b"pid"))
    for _ in range(2):
        with pytest.raises(DeadlineExceeded):
            await embed(supervisor, b"burn", time_left_s=0.2)
    assert not running(supervisor).requests.waiting
    await until(lambda: supervisor._running is None)
    second = number(await embed(supervisor, b"pid"))
    assert second != first
    done = await embed(supervisor, b"xyz", b"burn")
    assert [(error.row, error.reason) for error in done.errors] == [(1, "DECODE_TOO_SLOW")]
    assert number(await embed(supervisor, b"pid")) == second, "it is known by its content, no matter who sends it"


async def test_many_slow_images_of_one_request_are_found_one_after_the_other(make: Make) -> None:
    done = await embed(make(decode_cpu_s=0.2), b"burn 1", b"ok", b"burn 2")
    assert [error.row for error in done.errors] == [0, 2]


async def test_time_in_which_the_process_is_stopped_condemns_no_image(make: Make) -> None:
    supervisor = make(decode_cpu_s=0.5)
    pid = number(await embed(supervisor, b"pid"))
    waits = asyncio.create_task(embed(supervisor, b"note hang"))
    await until(lambda: any(note.is_decode for note in running(supervisor).process.notes.read()))
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(1.2)
    os.kill(pid, signal.SIGCONT)
    assert number(await embed(supervisor, b"pid")) == pid
    waits.cancel()


async def test_a_process_that_was_stopped_together_with_the_server_is_not_silent(make: Make) -> None:
    supervisor = make(silence_s=2.0)
    pid = number(await embed(supervisor, b"pid"))
    asked = asyncio.create_task(embed(supervisor, b"slow"))
    await asyncio.sleep(0.1)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(3)  # this process is stopped, too
    os.kill(pid, signal.SIGCONT)
    assert number(await asked) == 4
    assert number(await embed(supervisor, b"pid")) == pid, "it is the same process"


async def test_a_task_that_hangs_is_seen_although_callers_come_and_go(make: Make) -> None:
    supervisor = make(silence_s=1.0)
    first = number(await embed(supervisor, b"pid"))
    with pytest.raises(DeadlineExceeded):
        await embed(supervisor, b"note hang", time_left_s=0.2)
    assert not running(supervisor).requests.waiting
    last = first
    async with asyncio.timeout(20):  # answers to others are no progress of the one that hangs
        while last == first:
            with suppress(Unavailable):  # the process is killed while it works on this one
                last = number(await embed(supervisor, b"pid"))
            await asyncio.sleep(0.05)


async def test_a_process_that_reads_no_message_is_noticed_although_callers_come_and_go(make: Make) -> None:
    supervisor = make({"deaf": True}, silence_s=1.0)
    for _ in range(100):
        with pytest.raises((DeadlineExceeded, Unavailable)) as caught:
            await embed(supervisor, b"x", time_left_s=0.3)
        if caught.type is Unavailable:
            break
    assert caught.value.reason == "EMBEDDER_RESTARTED"


async def test_an_idle_process_is_left_alone(make: Make) -> None:
    supervisor = make(silence_s=0.3)
    first = number(await embed(supervisor, b"pid"))
    with pytest.raises(DeadlineExceeded):
        await embed(supervisor, b"slow", time_left_s=0.05)
    await asyncio.sleep(1.0)
    assert number(await embed(supervisor, b"pid")) == first


@pytest.mark.parametrize(("image", "are_suspects"), [(b"note die", False), (b"die", True)])
async def test_after_a_death_in_a_decoder_only_its_own_request_is_suspect(
    make: Make, image: bytes, are_suspects: bool
) -> None:
    supervisor = make()
    await embed(supervisor, b"warm")
    waits = asyncio.create_task(embed(supervisor, b"hang"))
    await asyncio.sleep(0.1)
    for call in (embed(supervisor, image), waits):
        with pytest.raises(Unavailable):
            await call
    assert len(supervisor._crashing._known) == (2 if are_suspects else 1)


async def test_a_request_that_kills_the_decoder_after_its_caller_has_gone_is_suspect_too(make: Make) -> None:
    supervisor = make()
    await embed(supervisor, b"warm")
    with pytest.raises(DeadlineExceeded):
        await embed(supervisor, b"note late die", time_left_s=0.1)
    innocent = asyncio.create_task(embed(supervisor, b"hang"))
    with pytest.raises(Unavailable):
        await innocent
    assert len(supervisor._crashing._known) == 1


async def test_when_a_pass_of_the_network_hangs_all_that_wait_are_suspects_and_tried_alone(make: Make) -> None:
    supervisor = make(silence_s=1.0)
    with pytest.raises(Unavailable):
        await embed(supervisor, b"forward hang")
    with pytest.raises(Unavailable):
        await embed(supervisor, b"forward hang")
    with pytest.raises(FailedPrecondition):
        await embed(supervisor, b"forward hang")


async def test_a_full_queue_is_told_with_when_to_come_again(make: Make) -> None:
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


async def test_a_deadline_ends_the_wait_and_cancels_the_request(make: Make) -> None:
    supervisor = make()
    await embed(supervisor, b"warm")
    with pytest.raises(DeadlineExceeded) as caught:
        await embed(supervisor, b"slow", time_left_s=0.05)
    assert caught.value.reason == "EMBED_DEADLINE"
    assert supervisor._queued_images == 0
    await asyncio.sleep(0.05)
    assert number(await embed(supervisor, b"cancelled")) == 1


async def test_a_caller_that_gives_up_during_the_start_does_not_end_it(make: Make) -> None:
    supervisor = make()
    with pytest.raises(DeadlineExceeded):
        await embed(supervisor, b"x", time_left_s=0.02)
    assert number(await embed(supervisor, b"xy")) == 2


async def test_a_cancelled_call_is_told_to_the_embedder(make: Make) -> None:
    supervisor = make()
    await embed(supervisor, b"warm")
    call = asyncio.create_task(embed(supervisor, b"slow"))
    await asyncio.sleep(0.1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.sleep(0.05)
    assert number(await embed(supervisor, b"cancelled")) == 1


async def test_it_gives_up_cores_while_a_trainer_runs(make: Make) -> None:
    budget = CoreBudget(4)
    supervisor = make(budget=budget)
    assert number(await embed(supervisor, b"threads")) == 4
    budget.trainer_started()
    await asyncio.sleep(0.05)
    assert number(await embed(supervisor, b"threads")) == 2
    budget.trainer_ended()
    await asyncio.sleep(0.05)
    assert number(await embed(supervisor, b"threads")) == 4


async def test_closing_fails_what_is_in_work_and_what_comes_later(make: Make) -> None:
    supervisor = make()
    await embed(supervisor, b"warm")
    call = asyncio.create_task(embed(supervisor, b"hang"))
    await asyncio.sleep(0.1)
    await supervisor.close()
    for late in (call, embed(supervisor, b"x")):
        with pytest.raises(Unavailable) as caught:
            await late
        assert caught.value.reason == "DRAINING"


async def test_closing_while_it_starts_leaves_no_process(make: Make) -> None:
    supervisor = make()
    call = asyncio.create_task(embed(supervisor, b"x"))
    await asyncio.sleep(0.03)
    await supervisor.close()
    with pytest.raises(Unavailable):
        await call
