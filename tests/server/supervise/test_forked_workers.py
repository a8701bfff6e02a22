"""A forked worker is what a started one is."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from manyview_server.supervise.fork_server import ForkServer
from manyview_server.supervise.process import Forks
from support.service.forks import EXIT, Used, forking, reported, start
from support.workers import program

COMMAND = program.command("support.workers.observed_worker")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def forks() -> AsyncIterator[ForkServer]:
    """A fork server of workers that observe themselves."""
    async with forking(COMMAND) as server:
        yield server


async def observed(forks: Forks | None, num_threads: int = 2) -> dict[str, Any]:
    process = await start(COMMAND, forks, num_threads=num_threads)
    try:
        await reported(process)
    finally:
        assert await process.stop(grace_s=10) == EXIT, process.stderr_tail
    found: dict[str, Any] = json.loads(process.stdout)
    assert found["parent"] == os.getpid()
    return found


async def test_a_forked_worker_is_in_every_way_what_a_started_one_is(forks: ForkServer) -> None:
    used = Used(forks)
    forked, started = await observed(used), await observed(None)
    assert len(used.pids) == 1
    for found in (forked, started):
        at = found["arguments"].index("--link-fd")
        found["arguments"][at + 1], found["arguments"][at + 3] = "N", "M"
        found["argv"] = found["arguments"][-len(found["argv"]) :]
    assert forked.pop("drawn") != started.pop("drawn")
    assert forked == started


async def test_each_forked_worker_has_its_own_number_of_threads_and_draws_numbers_of_its_own(forks: ForkServer) -> None:
    one, two = await observed(forks, 1), await observed(forks, 1)
    assert one["environment"]["OMP_NUM_THREADS"] == "1"
    assert one["torch threads"][0] == 1
    assert one["status"]["Threads:"] == ["1"]
    assert not set(one["drawn"]) & set(two["drawn"])
