"""Order, windows and endings of bidirectional streams, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

import pytest

from manyview_server.errors import Aborted, ServiceError
from manyview_server.front.rpc.bidi import RequestReader, RequestWindow, ending_in_band, in_order


@dataclass(frozen=True)
class Item:
    number: int
    num_bytes: int = 1


async def stream(*items: Item | Exception) -> AsyncIterator[Item]:
    for item in items:
        if isinstance(item, Exception):
            raise item
        yield item


async def test_answers_keep_the_order_whatever_work_ends_first() -> None:
    reader = RequestReader(stream(*(Item(n) for n in range(10))))

    async def work(item: Item) -> int:
        await asyncio.sleep(0.01 * (10 - item.number))
        return item.number

    assert [n async for n in in_order(reader.next, work, RequestWindow(4, 100))] == list(range(10))


async def test_the_window_bounds_batches_and_bytes() -> None:
    for window, most in ((RequestWindow(3, 100), 3), (RequestWindow(9, 25), 2), (RequestWindow(9, 5), 1)):
        reader = RequestReader(stream(*(Item(n, 10) for n in range(8))))
        running = highest = 0

        async def work(item: Item) -> int:
            nonlocal running, highest
            running += 1
            highest = max(highest, running)
            await asyncio.sleep(0.01)
            running -= 1
            return item.number

        assert len([n async for n in in_order(reader.next, work, window)]) == 8
        assert highest == most


async def test_an_error_of_the_work_ends_the_rest() -> None:
    cancelled: list[int] = []

    async def work(item: Item) -> int:
        try:
            await asyncio.sleep(0.05 if item.number <= 1 else 60)
        except asyncio.CancelledError:
            cancelled.append(item.number)
            raise
        if item.number == 1:
            raise Aborted("X", "text")
        return item.number

    reader = RequestReader(stream(*(Item(n) for n in range(4))))
    answers = in_order(reader.next, work, RequestWindow(4, 100))
    assert await anext(answers) == 0
    with pytest.raises(Aborted):
        await anext(answers)
    assert sorted(cancelled) == [2, 3]


async def test_an_error_of_the_reading_comes_after_the_answers_before_it() -> None:
    async def work(item: Item) -> int:
        await asyncio.sleep(0.02)
        return item.number

    reader = RequestReader(stream(Item(0), Item(1), Aborted("X", "text")))
    answers = in_order(reader.next, work, RequestWindow(4, 100))
    assert [await anext(answers), await anext(answers)] == [0, 1]
    with pytest.raises(Aborted):
        await anext(answers)


async def failing() -> AsyncGenerator[str, None]:
    yield "first"
    raise Aborted("X", "text", metadata={"expected": "3"})


async def test_a_terminal_error_is_sent_then_the_rest_is_dropped_then_it_is_raised() -> None:
    read: list[int] = []

    async def requests() -> AsyncIterator[Item]:
        for n in range(50):
            await asyncio.sleep(0)
            read.append(n)
            yield Item(n)

    answers = ending_in_band(failing(), RequestReader(requests()), lambda e: f"{e.reason} {e.metadata['expected']}")
    assert [await anext(answers), await anext(answers)] == ["first", "X 3"]
    with pytest.raises(Aborted):
        await anext(answers)
    assert read == list(range(50))


async def test_an_unexpected_error_is_sent_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> AsyncGenerator[str, None]:
        raise RuntimeError("secret")
        yield ""

    answers = ending_in_band(broken(), RequestReader(stream()), lambda e: e.message)
    assert "secret" not in await anext(answers)
    with pytest.raises(ServiceError, match="internal error"):
        await anext(answers)
    assert "secret" in caplog.text


async def test_dropping_gives_up_on_a_client_that_keeps_the_stream_open() -> None:
    async def endless() -> AsyncIterator[Item]:
        n = 0
        while True:
            yield Item(n)
            n += 1
            await asyncio.sleep(0.001)

    reader = RequestReader(endless())
    await asyncio.sleep(0.02)
    async with asyncio.timeout(2):
        await reader.drop_rest(0.1)
    reader.close()


async def test_an_interruption_ends_the_wait_for_a_request() -> None:
    silence, interrupted = asyncio.Event(), asyncio.Event()

    async def requests() -> AsyncIterator[Item]:
        yield Item(0)
        await silence.wait()

    async def interruption() -> ServiceError:
        await interrupted.wait()
        return Aborted("X", "text")

    reader = RequestReader(requests())
    reader.end_when(interruption())
    assert await reader.next() == Item(0)
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0.01)
    interrupted.set()
    async with asyncio.timeout(5):
        with pytest.raises(Aborted):
            await waiting
    reader.close()


async def test_requests_are_read_one_ahead() -> None:
    read: list[int] = []

    async def requests() -> AsyncIterator[Item]:
        for n in range(4):
            read.append(n)
            yield Item(n)

    reader = RequestReader(requests())
    await asyncio.sleep(0.01)
    assert read == [0, 1], "the first request waits, and the second is held until the first is taken"
    assert await reader.next() == Item(0)
    await asyncio.sleep(0.01)
    assert read == [0, 1, 2]
    reader.close()
