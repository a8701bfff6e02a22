"""Selectors are processes that come and go: each caller gets an answer or a reason, and none is left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manyview_server.errors import InvalidArgument, ResourceExhausted, ServiceError, Unavailable
from manyview_server.messages.selection import RowsSelected, SelectRows
from manyview_server.supervise.cores import CoreBudget
from manyview_server.supervise.process import WorkerProcess
from manyview_server.supervise.selectors import selector as selector_module
from manyview_server.supervise.selectors.selector import OnStage, SelectorLimits, SelectorPool
from support.learning.forked import children

Make = Callable[..., SelectorPool]


async def gone() -> None:
    async with asyncio.timeout(10):
        while children():
            await asyncio.sleep(0.01)


@pytest.fixture
async def make(scripted: Any) -> AsyncIterator[Make]:
    made: list[SelectorPool] = []

    def make(behaviour: Any = "normal", budget: CoreBudget | None = None, **limits: Any) -> SelectorPool:
        limited = SelectorLimits(**{"exit_s": 0.2, **limits})
        pool = SelectorPool(
            budget or CoreBudget(4), "cpu", command=scripted(selector=behaviour), limits=limited, memory_bytes=4000
        )
        made.append(pool)
        return pool

    yield make
    for pool in made:
        await pool.close()
    assert children() == []


async def ask(
    pool: SelectorPool, strategy: str = "", seconds: float = 0.0, on_stage: OnStage = lambda _: None
) -> list[int]:
    """The process id and the number of threads."""
    request = SelectRows(
        source=pool.source("", 1, 1, unit=False),
        strategy=strategy,
        count=1,
        seed=0,
        distance=seconds,
        num_neighbors=0,
        balance="",
    )
    answer = await pool.ask(request, on_stage)
    assert isinstance(answer, RowsSelected)
    found: list[int] = np.frombuffer(answer.blobs[0], "<i8").tolist()
    return found


async def test_a_process_starts_with_the_first_request_and_is_kept_for_the_next(make: Make) -> None:
    pool = make()
    assert children() == []
    first, again = await ask(pool), await ask(pool)
    assert first == again
    assert len(children()) == 1


async def test_a_request_says_whether_it_waits_starts_a_process_or_is_in_work(make: Make) -> None:
    pool = make(max_processes=1)
    stages: dict[int, list[str]] = {number: [] for number in range(3)}
    first, second = (asyncio.create_task(ask(pool, seconds=0.1, on_stage=stages[number].append)) for number in range(2))
    await asyncio.gather(first, second)
    await ask(pool, on_stage=stages[2].append)
    assert stages[0] == ["computing", "starting", "computing"]
    assert stages[1] == ["queued", "computing"]
    assert stages[2] == ["computing"]


async def test_requests_work_side_by_side_in_so_many_processes_and_the_rest_waits(make: Make) -> None:
    pool = make(max_processes=2)
    answers = await asyncio.gather(*(ask(pool, seconds=0.1) for _ in range(5)))
    assert len({pid for pid, _ in answers}) == 2


async def test_too_many_that_wait_are_told_to_come_back(make: Make) -> None:
    pool = make(max_processes=1, max_requests=2)
    waiting = [asyncio.create_task(ask(pool, seconds=0.2)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted, match="2 selections are already waiting") as caught:
        await ask(pool)
    assert caught.value.retry_after_s > 0
    await asyncio.gather(*waiting)
    await ask(pool)


async def test_a_process_without_work_ends(make: Make) -> None:
    pool = make(idle_s=0.1)
    await ask(pool)
    await gone()
    await ask(pool)


async def test_a_caller_that_goes_away_ends_its_process_and_frees_its_place(make: Make) -> None:
    pool = make(max_processes=1)
    task = asyncio.create_task(ask(pool, "hang"))
    waiting = asyncio.create_task(ask(pool))
    async with asyncio.timeout(10):
        while not children():
            await asyncio.sleep(0.01)
    (pid,) = children()
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found, _ = await waiting
    assert str(found) != pid
    assert not Path(f"/proc/{pid}").exists()


async def test_a_caller_that_goes_away_while_it_starts_leaves_no_process(make: Make) -> None:
    pool = make()
    task = asyncio.create_task(ask(pool))
    async with asyncio.timeout(10):
        while not children():
            await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone()


@pytest.mark.parametrize("strategy", ["die", "garbage"])
async def test_a_death_is_told_without_what_it_printed_and_the_next_request_is_answered(
    make: Make, caplog: pytest.LogCaptureFixture, strategy: str
) -> None:
    pool = make()
    with pytest.raises(ServiceError, match="the selector died") as caught:
        await ask(pool, strategy)
    assert (caught.value.code, caught.value.reason) == ("INTERNAL", "INTERNAL")
    assert "it went wrong" not in caught.value.message
    (record,) = [record for record in caplog.records if record.message == "selector died"]
    assert record.__dict__["error_id"] in caught.value.message
    assert len(await ask(pool)) == 2


async def test_a_death_for_want_of_memory_says_what_to_do(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make()
    pid, _ = await ask(pool)
    kills = iter([0, 1])
    monkeypatch.setattr(selector_module, "oom_kills", lambda: next(kills))
    task = asyncio.create_task(ask(pool, "hang"))
    await asyncio.sleep(0.2)
    os.kill(pid, 9)
    with pytest.raises(ResourceExhausted, match="select from fewer images") as caught:
        await task
    assert (caught.value.reason, caught.value.retry_after_s) == ("SELECTION_OUT_OF_MEMORY", 0)


async def test_a_process_that_died_while_it_was_idle_is_replaced(make: Make) -> None:
    pool = make()
    pid, _ = await ask(pool)
    os.kill(pid, 9)
    await gone()
    assert (await ask(pool))[0] != pid


async def test_a_process_that_rested_and_dies_late_costs_no_request(make: Make) -> None:
    pool = make()
    pid, _ = await ask(pool)
    os.kill(pid, signal.SIGSTOP)
    task = asyncio.create_task(ask(pool))
    await asyncio.sleep(0.3)
    os.kill(pid, signal.SIGKILL)
    assert (await task)[0] != pid


async def without_descriptors(*_: object, **__: object) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_a_process_that_finds_no_descriptor_reports_that_and_starts_when_there_is_one(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make()
    with monkeypatch.context() as patch:
        patch.setattr(WorkerProcess, "start", without_descriptors)
        with pytest.raises(ResourceExhausted) as caught:
            await ask(pool)
    assert (caught.value.reason, caught.value.retry_after_s > 0) == ("TOO_MANY_OPEN_FILES", True)
    assert (await ask(pool))[0] > 0


async def test_one_that_cannot_start_is_told_as_that(make: Make) -> None:
    with pytest.raises(Unavailable) as caught:
        await ask(make({"die": "at once"}))
    assert (caught.value.reason, caught.value.retry_after_s > 0) == ("SELECTOR_START", True)


async def test_what_the_selector_refuses_has_its_status(make: Make) -> None:
    with pytest.raises(InvalidArgument, match="it cannot be done"):
        await ask(make(), "fail")


async def test_rows_that_take_too_much_memory_are_refused(make: Make) -> None:
    pool = make()
    pool.source("", 1000, 1, unit=True)
    with pytest.raises(ResourceExhausted, match="1,001 embeddings of 1 feature take 4,004 bytes") as caught:
        pool.source("", 1001, 1, unit=True)
    assert caught.value.reason == "SELECTION_TOO_LARGE"
    pool.source("", 10, 10, unit=True, num_neighbors=30)
    with pytest.raises(ResourceExhausted, match="10 embeddings of 10 features and 31 neighbors take 4,120 bytes"):
        pool.source("", 10, 10, unit=True, num_neighbors=31)


async def test_beside_a_trainer_it_takes_half_of_the_cores(make: Make) -> None:
    budget = CoreBudget(4)
    pool = make(budget=budget)
    assert (await ask(pool))[1] == 4
    budget.trainer_started()
    assert (await ask(pool))[1] == 2


async def test_closing_ends_what_works_and_refuses_what_comes(make: Make) -> None:
    pool = make()
    task = asyncio.create_task(ask(pool, "hang"))
    await asyncio.sleep(0.5)
    await pool.close()
    with pytest.raises(Unavailable) as caught:
        await task
    assert caught.value.reason == "DRAINING"
    with pytest.raises(Unavailable):
        await ask(pool)
    assert children() == []
