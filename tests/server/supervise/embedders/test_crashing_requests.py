"""Suspects are tried alone; culprits are known."""

from __future__ import annotations

import asyncio

from manyview_server.supervise.embedders.crashing_requests import MAX_REMEMBERED, CrashingRequests

A, B, C = b"a", b"b", b"c"


async def test_one_death_makes_suspects_and_another_one_alone_a_culprit() -> None:
    crashing = CrashingRequests()
    async with crashing.turn(A), crashing.turn(B):
        crashing.record_death([A, B])
    assert not crashing.is_culprit(A)
    async with crashing.turn(A):
        crashing.record_death([A])
    assert crashing.is_culprit(A)
    assert not crashing.is_culprit(B)


async def test_an_answered_suspect_is_one_no_more() -> None:
    crashing = CrashingRequests()
    crashing.record_death([A])
    async with crashing.turn(A):
        crashing.clear(A)
    async with crashing.turn(A), crashing.turn(B):
        crashing.record_death([A])
    assert not crashing.is_culprit(A)


async def test_a_suspect_waits_for_the_others_and_they_for_it() -> None:
    crashing = CrashingRequests()
    crashing.record_death([A])
    order: list[str] = []
    release = asyncio.Event()

    async def visit(name: bytes) -> None:
        async with crashing.turn(name):
            order.append(f"{name.decode()} in")
            await release.wait()
            order.append(f"{name.decode()} out")
            await asyncio.sleep(0)

    tasks = []
    for name in (B, A, C):
        tasks.append(asyncio.create_task(visit(name)))
        await asyncio.sleep(0.01)
    assert order == ["b in"]
    release.set()
    await asyncio.gather(*tasks)
    assert order == ["b in", "b out", "a in", "a out", "c in", "c out"]


async def test_a_suspect_that_gives_up_waiting_holds_up_nobody() -> None:
    crashing = CrashingRequests()
    crashing.record_death([A])
    async with crashing.turn(B):
        waiting = asyncio.create_task(crashing.turn(A).__aenter__())
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait([waiting])
        async with asyncio.timeout(1), crashing.turn(C):
            pass


async def test_the_oldest_are_forgotten() -> None:
    crashing = CrashingRequests()
    async with crashing.turn(A):
        crashing.record_death([A])
    async with crashing.turn(A):
        crashing.record_death([A])
    crashing.record_death(str(i).encode() for i in range(MAX_REMEMBERED))
    assert not crashing.is_culprit(A)
