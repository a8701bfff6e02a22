"""A step is measured once, in a process of its own, on a device that does nothing else, and within a limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from manyview_server.errors import DeadlineExceeded, FailedPrecondition, Unavailable
from manyview_server.messages.timing import StepTimed
from manyview_server.supervise.cores import CoreBudget
from manyview_server.supervise.timers.step_timer import StepTimerLimits, StepTimerSupervisor
from manyview_server.supervise.timers.step_times import StepTimes
from support.learning.forked import children

Make = Callable[..., StepTimerSupervisor]


@pytest.fixture
def budget() -> CoreBudget:
    return CoreBudget(4)


@pytest.fixture
async def make(scripted: Any, budget: CoreBudget, tmp_path: Path) -> AsyncIterator[Make]:
    made: list[StepTimerSupervisor] = []

    def make(behaviour: str = "normal") -> StepTimerSupervisor:
        times = StepTimes(tmp_path / "times.json", {})
        limits = StepTimerLimits(exit_s=0.2)
        timer = StepTimerSupervisor(times, budget, "cpu", command=scripted(timer=behaviour), limits=limits)
        made.append(timer)
        return timer

    yield make
    for timer in made:
        await timer.close()
    assert children() == []


async def measure(timer: StepTimerSupervisor, image_size: int = 32, wait_s: float = 10) -> StepTimed:
    return await timer.time({"image_size": image_size}, num_images=100, decode_size=64, wait_s=wait_s)


async def test_a_step_is_measured_once_by_a_process_that_then_ends(make: Make) -> None:
    timer = make()
    first, again, other = await measure(timer), await measure(timer), await measure(timer, 64)
    assert first == again
    assert other.batch_size != first.batch_size  # the id of another process
    async with asyncio.timeout(10):
        while children():
            await asyncio.sleep(0.01)


async def test_callers_of_the_same_step_share_a_measurement(make: Make) -> None:
    timer = make()
    first, second = await asyncio.gather(measure(timer), measure(timer))
    assert first == second


async def test_nothing_is_measured_beside_a_trainer(make: Make, budget: CoreBudget) -> None:
    timer = make()
    known = await measure(timer)
    budget.trainer_started()
    assert await measure(timer) == known
    with pytest.raises(Unavailable, match="the device trains another job now") as caught:
        await measure(timer, 64)
    assert caught.value.reason == "DEVICE_BUSY"


async def test_a_process_that_takes_too_long_is_killed(make: Make) -> None:
    with pytest.raises(DeadlineExceeded, match="could not be measured within"):
        await measure(make("hang"), wait_s=0.5)


async def test_a_process_that_dies_is_an_error(make: Make) -> None:
    with pytest.raises(FailedPrecondition, match="ended with exit status 1"):
        await measure(make("die"))
    with pytest.raises(Unavailable, match="the timer cannot be started"):
        await measure(make("die at once"))


async def test_without_time_only_what_was_measured_earlier_is_known(make: Make) -> None:
    timer = make()
    with pytest.raises(Unavailable, match="no step of it was measured on this device yet"):
        await measure(timer, wait_s=0)
    known = await measure(timer)
    assert await measure(timer, wait_s=0) == known


async def test_what_the_process_refuses_is_raised(make: Make) -> None:
    with pytest.raises(FailedPrecondition, match="no such network"):
        await measure(make("refuse"))


async def test_closing_ends_a_measurement(make: Make) -> None:
    timer = make("hang")
    waiting = asyncio.create_task(measure(timer, wait_s=60))
    async with asyncio.timeout(10):
        while not children():
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    await timer.close()
    with pytest.raises(Unavailable, match="the server is stopping"):
        await waiting
