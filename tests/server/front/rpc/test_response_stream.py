"""The stream of one call: what it sends while its work runs, and what happens when the caller goes away."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from manyview.v1 import embed_service_pb2 as pb
from manyview_server.errors import NotFound, Unavailable
from manyview_server.front.rpc import response_stream as module
from manyview_server.front.rpc.draining import Draining
from manyview_server.front.rpc.response_stream import ResponseStream


def progress() -> pb.EmbeddingsProgress:
    return pb.EmbeddingsProgress(done=1)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PROGRESS_S", 0.02)
    monkeypatch.setattr(module, "PROGRESS_S", 0.02)


@pytest.fixture
def stream() -> ResponseStream[str]:
    return ResponseStream(Draining(), lambda progress: f"progress {progress.done}")


async def taken(stream: ResponseStream[str], work: Any) -> list[str]:
    return [response async for response in stream.responses(work)]


@pytest.mark.parametrize("count", [0, 1, 2, 50])
async def test_everything_that_is_sent_arrives_in_order(stream: ResponseStream[str], count: int) -> None:
    async def work() -> None:
        for number in range(count):
            await stream.send(str(number))

    assert await taken(stream, work()) == [str(number) for number in range(count)]


async def test_an_error_comes_behind_what_was_sent_before_it(stream: ResponseStream[str]) -> None:
    async def work() -> None:
        await stream.send("first")
        raise NotFound("GONE", "gone")

    responses = stream.responses(work())
    assert await anext(responses) == "first"
    with pytest.raises(NotFound):
        await anext(responses)


async def test_a_caller_that_waits_is_told_of_progress(stream: ResponseStream[str]) -> None:
    async def slow() -> int:
        await asyncio.sleep(0.2)
        return 7

    async def work() -> None:
        await stream.send(f"found {await stream.wait(slow(), progress)}")

    *reports, last = await taken(stream, work())
    assert last == "found 7"
    assert len(reports) >= 3
    assert set(reports) == {"progress 1"}


async def test_what_the_work_raises_is_raised_at_the_wait(stream: ResponseStream[str]) -> None:
    async def broken() -> None:
        raise NotFound("GONE", "gone")

    async def work() -> None:
        with pytest.raises(NotFound):
            await stream.wait(broken(), progress)
        await stream.send("went on")

    assert await taken(stream, work()) == ["went on"]


async def test_a_caller_that_goes_away_cancels_the_work_wherever_it_is(stream: ResponseStream[str]) -> None:
    cancelled = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def work() -> None:
        await stream.send("begun")
        await stream.wait(endless(), progress)

    async with aclosing(stream.responses(work())) as responses:
        assert await anext(responses) == "begun"
        await asyncio.sleep(0.05)
    assert cancelled.is_set()


async def test_a_caller_that_does_not_read_holds_the_work_up(stream: ResponseStream[str]) -> None:
    sent = 0

    async def work() -> None:
        nonlocal sent
        for number in range(100):
            await stream.send(str(number))
            sent += 1

    async with aclosing(stream.responses(work())) as responses:
        await anext(responses)
        await asyncio.sleep(0.05)
        assert sent < 5


async def test_a_server_that_stops_says_so_to_whoever_waits_or_is_sent_to() -> None:
    draining = Draining()
    stream: ResponseStream[str] = ResponseStream(draining, lambda progress: "progress")

    async def work() -> None:
        asyncio.get_running_loop().call_later(0.05, draining.start)
        with pytest.raises(Unavailable, match="is shutting down"):
            await stream.wait(asyncio.sleep(100), progress)
        await stream.send("too late")

    with pytest.raises(Unavailable, match="is shutting down"):
        await taken(stream, work())
