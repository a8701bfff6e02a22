from __future__ import annotations

import asyncio

import pytest

from manyview_server.front.jobs.subscriptions.event_pages import PAGE_EVENTS
from manyview_server.front.jobs.subscriptions.replay_pace import BURST_S, LONGEST_SLEEP_S, MESSAGE_S, ReplayPace

PAGE_BYTES = 10_000_000


class Clock:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.cores: float | None = None
        self.longest = 0.0

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.longest = max(self.longest, seconds)
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> ReplayPace:
    return ReplayPace(lambda: clock.cores, clock=clock.time, sleep=clock.sleep)


async def test_without_a_trainer_nobody_waits(pace: ReplayPace, clock: Clock) -> None:
    for _ in range(1000):
        await pace.ask()
        pace.used(PAGE_BYTES)
    assert clock.now == 0


async def test_while_jobs_train_replays_use_their_share_of_the_cores_beyond_a_burst(
    pace: ReplayPace, clock: Clock
) -> None:
    clock.cores = 0.04
    used = 0.0
    while clock.now < 500:
        await pace.ask()
        before = pace._credit_s
        pace.used(PAGE_BYTES)
        used += before - pace._credit_s
    assert used == pytest.approx(BURST_S + 0.04 * clock.now, rel=0.01)
    assert clock.longest <= LONGEST_SLEEP_S
    # A pause fills the burst, and not more.
    clock.now += 10_000
    await pace.ask()
    assert pace._credit_s == BURST_S


async def test_turns_come_in_the_order_in_which_they_were_asked_for(pace: ReplayPace, clock: Clock) -> None:
    clock.cores = 0.04
    order: list[int] = []

    async def replay(number: int) -> None:
        for _ in range(3):
            await pace.ask()
            order.append(number)
            pace.used(100 << 20)

    await asyncio.gather(*(replay(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4] * 3


async def test_a_turn_that_is_given_up_holds_nobody_up(pace: ReplayPace, clock: Clock) -> None:
    clock.cores = 0.04
    pace.used(int(1e12))
    first, second = pace.ask(), pace.ask()
    await asyncio.sleep(0)
    first.cancel()
    clock.cores = None
    await second
    assert clock.now <= LONGEST_SLEEP_S


async def test_others_run_between_two_turns(pace: ReplayPace) -> None:
    order: list[str] = []

    async def replay() -> None:
        await pace.ask()
        order.append("page")

    async def live() -> None:
        for _ in range(4):
            order.append("live")
            await asyncio.sleep(0)

    await asyncio.gather(*(replay() for _ in range(4)), live())
    assert "page page page" not in " ".join(order)


def test_a_message_costs_more_than_its_bytes(pace: ReplayPace) -> None:
    pace.used(0)
    assert pace._credit_s == BURST_S - MESSAGE_S


async def test_one_subscriber_replays_a_million_events_without_a_wait(pace: ReplayPace, clock: Clock) -> None:
    clock.cores = 0.04
    for _ in range(1_000_000 // PAGE_EVENTS):
        await pace.ask()
        pace.used(PAGE_EVENTS * 352)
    assert clock.now == 0
