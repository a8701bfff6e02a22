"""Suspects are tried alone; culprits are known."""

from __future__ import annotations

import asyncio

from manyview_server.supervise.embedders.crashing_requests import MAX_REMEMBERED, Quarantine

A, B, C = b"a", b"b", b"c"


async def test_one_death_makes_suspects_and_another_one_alone_a_culprit():
    quarantine = Quarantine()
    async with quarantine.turn(A), quarantine.turn(B):
        quarantine.blame([A, B])
    assert not quarantine.is_culprit(A)
    async with quarantine.turn(A):
        quarantine.blame([A])
    assert quarantine.is_culprit(A)
    assert not quarantine.is_culprit(B)


async def test_an_answered_suspect_is_one_no_more():
    quarantine = Quarantine()
    quarantine.blame([A])
    async with quarantine.turn(A):
        quarantine.acquit(A)
    async with quarantine.turn(A), quarantine.turn(B):
        quarantine.blame([A])
    assert not quarantine.is_culprit(A)


async def test_a_suspect_waits_for_the_others_and_they_for_it():
    quarantine = Quarantine()
    quarantine.blame([A])
    order: list[str] = []
    release = asyncio.Event()

    async def visit(name: bytes) -> None:
        async with quarantine.turn(name):
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


async def test_a_suspect_that_gives_up_waiting_holds_up_nobody():
    quarantine = Quarantine()
    quarantine.blame([A])
    async with quarantine.turn(B):
        waiting = asyncio.create_task(quarantine.turn(A).__aenter__())
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait([waiting])
        async with asyncio.timeout(1), quarantine.turn(C):
            pass


async def test_the_oldest_are_forgotten():
    quarantine = Quarantine()
    async with quarantine.turn(A):
        quarantine.blame([A])
    async with quarantine.turn(A):
        quarantine.blame([A])
    quarantine.blame(str(i).encode() for i in range(MAX_REMEMBERED))
    assert not quarantine.is_culprit(A)
