"""Previews come from a process that may die, hang or be given up: each caller gets an answer or a reason."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from manyview_server.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)
from manyview_server.messages.preview import PreviewDone, PreviewImages
from manyview_server.supervise.previewers.previewer import PreviewerLimits, PreviewerSupervisor
from manyview_server.supervise.process import WorkerProcess
from manyview_server.supervise.slow_images import content_id
from manyview_server.system.awake_time import MAX_SLICE_S
from support.learning.forked import children

Make = Callable[..., PreviewerSupervisor]


@pytest.fixture
async def make(scripted: Any) -> AsyncIterator[Make]:
    made: list[PreviewerSupervisor] = []

    def make(behaviour: Any = "normal", **limits: Any) -> PreviewerSupervisor:
        limited = PreviewerLimits(**{"exit_s": 0.2, **limits})
        made.append(PreviewerSupervisor(command=scripted(previewer=behaviour), limits=limited))
        return made[-1]

    yield make
    for supervisor in made:
        await supervisor.close()
    assert not children()


async def preview(supervisor: PreviewerSupervisor, image: bytes, time_left_s: float = 0.0) -> PreviewDone:
    async def make() -> PreviewImages:
        return PreviewImages(settings={}, epoch=0, max_pixel_bytes=1, blobs=(image,))

    return await supervisor.preview(make, time_left_s)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_one_process_starts_with_the_first_request_and_serves_the_next_ones(make: Make) -> None:
    supervisor = make()
    assert not children()
    done = [await preview(supervisor, b"x" * n) for n in (3, 4)]
    assert [d.images[0].width for d in done] == [3, 4]
    assert [[str(d.decode_size)] for d in done] == [children()] * 2


async def test_concurrent_requests_are_answered_one_after_the_other_each_with_its_own(make: Make) -> None:
    supervisor = make()
    done = await asyncio.gather(*(preview(supervisor, b"x" * n) for n in range(1, 8)))
    assert [d.images[0].width for d in done] == list(range(1, 8))
    assert len({d.decode_size for d in done}) == 1


async def test_after_a_while_without_requests_the_process_ends_and_the_next_request_starts_another(make: Make) -> None:
    supervisor = make(idle_s=0.1)
    first = await preview(supervisor, b"x")
    await until(lambda: not children())
    assert (await preview(supervisor, b"x")).decode_size != first.decode_size


async def test_a_request_that_kills_the_process_is_told_so_and_the_next_one_is_served(make: Make) -> None:
    supervisor = make()
    with pytest.raises(
        FailedPrecondition, match="ended with SIGSEGV, because of one of these images or of a plugin"
    ) as caught:
        await preview(supervisor, b"die")
    assert caught.value.reason == "PREVIEW_CRASHED"
    assert (await preview(supervisor, b"x")).images[0].width == 1


async def test_an_image_that_takes_too_long_is_refused_and_its_neighbors_are_shown(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = make(decode_cpu_s=0.3)

    async def both() -> PreviewImages:
        return PreviewImages(settings={}, epoch=0, max_pixel_bytes=1, blobs=(b"abc", b"burn", b"x", b"burn 2"))

    done = await supervisor.preview(both, 0.0)
    assert [(image.width, image.reason) for image in done.images] == [
        (3, ""),
        (0, "DECODE_TOO_SLOW"),
        (1, ""),
        (0, "DECODE_TOO_SLOW"),
    ]
    again = await supervisor.preview(both, 0.0)
    assert again.decode_size == done.decode_size, "they cost no second process"
    found = [vars(record)["image"] for record in caplog.records if "too long to decode" in record.message]
    assert found == [f"{content_id(data):016x}" for data in (b"burn", b"burn 2")]


async def test_a_process_that_ends_while_nobody_asks_costs_no_request(make: Make) -> None:
    supervisor = make()
    os.kill((await preview(supervisor, b"x")).decode_size, signal.SIGKILL)
    await until(lambda: not children())
    assert (await preview(supervisor, b"x")).images[0].width == 1


async def test_what_the_previewer_refuses_has_its_status(make: Make) -> None:
    with pytest.raises(InvalidArgument, match="too large") as caught:
        await preview(make(), b"refuse")
    assert caught.value.reason == "PREVIEW_TOO_LARGE"


async def test_a_stray_answer_is_a_death(make: Make) -> None:
    with pytest.raises(FailedPrecondition, match="the process that makes the views ended"):
        await preview(make(), b"stray")


@pytest.mark.parametrize(("time_left_s", "most_s"), [(0.5, 120.0), (0.0, 0.5), (60.0, 0.5)])
async def test_a_request_that_hangs_ends_with_its_deadline_and_holds_up_nobody(
    make: Make, time_left_s: float, most_s: float
) -> None:
    supervisor = make(most_s=most_s)
    with pytest.raises(DeadlineExceeded, match=r"within 0\.5 seconds"):
        await preview(supervisor, b"hang", time_left_s)
    await until(lambda: not children())
    with pytest.raises(DeadlineExceeded):
        await preview(supervisor, b"hang", 0.5)


async def test_a_caller_that_goes_away_takes_the_process_with_it(make: Make) -> None:
    supervisor = make()
    await preview(supervisor, b"x")
    task = asyncio.create_task(preview(supervisor, b"hang"))
    waiting = asyncio.create_task(preview(supervisor, b"abc"))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await waiting).images[0].width == 3


async def test_a_request_is_made_when_its_turn_has_come_and_may_fail(make: Make) -> None:
    supervisor, made = make(), []

    async def later() -> PreviewImages:
        made.append(True)
        raise DeadlineExceeded("OWN", "its own failure")

    first = asyncio.create_task(preview(supervisor, b"slow"))
    await asyncio.sleep(0)
    second = asyncio.create_task(supervisor.preview(later, 0.0))
    await asyncio.sleep(0.05)
    assert not first.done()
    assert not made
    with pytest.raises(DeadlineExceeded, match="its own failure"):
        await second
    assert (await first).images
    assert (await preview(supervisor, b"x")).images[0].width == 1


async def test_of_many_requests_the_last_ones_are_told_to_come_again(make: Make) -> None:
    supervisor = make(max_requests=2)
    first = [asyncio.create_task(preview(supervisor, b"slow")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted) as caught:
        await preview(supervisor, b"x")
    assert caught.value.reason == "PREVIEW_QUEUE_FULL"
    assert caught.value.retry_after_s > 0
    await asyncio.gather(*first)
    assert (await preview(supervisor, b"x")).images[0].width == 1


@pytest.mark.parametrize("behaviour", ["die at once", "no hello"])
async def test_a_process_that_cannot_start_is_unavailable(make: Make, behaviour: str) -> None:
    with pytest.raises(Unavailable) as caught:
        await preview(make(behaviour, hello_s=0.5), b"x")
    assert caught.value.reason == "PREVIEWER_START"


async def without_descriptors(*_: object, **__: object) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_a_process_that_finds_no_descriptor_reports_that_and_starts_when_there_is_one(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = make()
    with monkeypatch.context() as patch:
        patch.setattr(WorkerProcess, "start", without_descriptors)
        with pytest.raises(ResourceExhausted) as caught:
            await preview(supervisor, b"x")
    assert (caught.value.reason, caught.value.retry_after_s > 0) == ("TOO_MANY_OPEN_FILES", True)
    assert (await preview(supervisor, b"x")).images[0].width == 1


async def test_a_missing_program_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await preview(PreviewerSupervisor(command=("/no-such-program",)), b"x")


async def test_a_server_that_stops_says_so_to_the_request_in_work_and_to_later_ones(make: Make) -> None:
    supervisor = make()
    await preview(supervisor, b"x")
    task = asyncio.create_task(preview(supervisor, b"hang"))
    await asyncio.sleep(0.1)
    await supervisor.close()
    for request in (task, preview(supervisor, b"x")):
        with pytest.raises(Unavailable) as caught:
            await request
        assert caught.value.reason == "DRAINING"


async def test_a_request_is_not_out_of_time_because_the_server_slept(make: Make) -> None:
    supervisor = make(most_s=MAX_SLICE_S + 3.0)
    await preview(supervisor, b"x")
    asked = asyncio.create_task(preview(supervisor, b"slow"))
    await asyncio.sleep(0.1)
    time.sleep(4.0)  # the loop stands, as by SIGSTOP, and the answer waits in the socket
    assert (await asked).images[0].width == 4
