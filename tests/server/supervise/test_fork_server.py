"""The fork server may die at any moment, and no worker is lost. See `test_forked_workers` for the workers."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from manyview_server.link.fork_requests import EXIT_UNFIT
from manyview_server.supervise import fork_server
from manyview_server.supervise.fork_server import ForkServer
from manyview_server.supervise.process import CannotFork, WorkerProcess
from manyview_server.system.host_memory import HostMemory
from support.learning.forked import children
from support.service.descriptors import open_descriptors
from support.service.forks import EXIT, Used, forking, reported, start, until
from support.workers import program

COMMAND = program.command("support.workers.light_worker")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def forks() -> AsyncIterator[ForkServer]:
    """A fork server of workers that start fast."""
    async with forking(COMMAND) as server:
        yield server


async def test_the_exit_of_a_forked_worker_is_seen_as_it_was(forks: ForkServer) -> None:
    used = Used(forks)
    failed = await start(COMMAND, used, "--fail")
    assert await failed.wait() == 1
    assert failed.stderr_tail.rstrip().endswith("RuntimeError: asked to fail")
    await failed.stop()
    killed = await start(COMMAND, used)
    os.kill(killed.pid, signal.SIGSEGV)
    assert await killed.wait() == -signal.SIGSEGV
    await killed.stop()
    assert used.pids == [failed.pid, killed.pid]


def server_pids() -> list[int]:
    lines = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children()}
    return [pid for pid, line in lines.items() if b"fork-server" in line]


def server_pid() -> int:
    (pid,) = server_pids()
    return pid


async def test_a_killed_fork_server_is_replaced_costs_no_start_and_leaves_its_workers_running(
    forks: ForkServer, caplog: pytest.LogCaptureFixture
) -> None:
    before = await start(COMMAND, forks)
    dead = server_pid()
    os.kill(dead, signal.SIGKILL)
    during = await start(COMMAND, forks)
    await until(lambda: str(dead) not in children() and len(children()) == 3, "there is another fork server")
    used = Used(forks)
    await forks.warm_up()
    assert server_pid() != dead
    after = await start(COMMAND, used)
    assert used.pids == [after.pid]
    for process in (before, during, after):
        assert process.running
        await reported(process)
        assert await process.stop(grace_s=10) == EXIT
    assert "the fork server died" in caplog.text


async def test_a_fork_server_that_dies_during_a_fork_costs_no_start_and_leaves_no_process(forks: ForkServer) -> None:
    for delay_s in (0.001, 0.01):
        while not server_pids():  # after a death, the next one starts with a delay
            await forks.warm_up(after_s=0.01)
        dead = server_pid()  # a worker has the server's command line for a moment
        starting = asyncio.create_task(start(COMMAND, forks))
        await asyncio.sleep(delay_s)
        os.kill(dead, signal.SIGKILL)
        process = await starting
        await reported(process)
        assert await process.stop(grace_s=10) == EXIT
        await until(lambda: len(children()) <= 1, "nothing else is left")


async def test_a_caller_that_gives_up_during_a_fork_leaves_no_process_and_no_descriptor(forks: ForkServer) -> None:
    await forks.warm_up()
    await (await start(COMMAND, forks)).stop()
    await asyncio.sleep(0.01)
    gc.collect()
    before = open_descriptors()
    for delay_s in (0.0, 0.001, 0.005, 0.02):
        starting = asyncio.create_task(start(COMMAND, forks))
        await asyncio.sleep(delay_s)
        starting.cancel()
        await asyncio.wait([starting])
        if not starting.cancelled():
            await starting.result().stop()
        del starting  # its error holds on to descriptors
    await until(lambda: len(forks._tasks) == len(children()) == 1, "only the fork server and its watch are left")
    await asyncio.sleep(0.01)
    gc.collect()
    assert open_descriptors() <= before


async def test_workers_that_are_wanted_at_once_are_forked_one_by_one(forks: ForkServer) -> None:
    used = Used(forks)
    began = time.monotonic()
    started = await asyncio.gather(*(start(COMMAND, used) for _ in range(4)))
    assert len({process.pid for process in started}) == len(used.pids) == 4, time.monotonic() - began
    for process in started:
        process.kill()
        assert await process.stop() == -signal.SIGKILL


async def test_without_a_fork_server_that_works_workers_are_started_as_programs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = ForkServer(1, command=(sys.executable, "-S", "-c", "raise SystemExit('no such library')"))
    process = await WorkerProcess.start(
        "x", num_threads=1, command=(sys.executable, "-S", "-c", "print(7)"), forks=broken, capture_stdout=True
    )
    assert await process.wait() == 0
    assert process.stdout == "7\n"
    await process.stop()
    with pytest.raises(CannotFork):
        await broken._running()
    assert sum("the fork server died" in record.message for record in caplog.records) == 1, "it waits before it retries"
    await broken.close()


async def test_a_fork_server_that_is_unfit_says_so_once_and_is_not_started_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unfit = ForkServer(1, command=(sys.executable, "-S", "-c", f"raise SystemExit({EXIT_UNFIT})"), restart_s=0.0)
    for _ in range(3):
        await unfit.warm_up()
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.message == "workers cannot be forked on this machine, and start slowly"
    await unfit.close()


async def test_a_fork_server_can_be_closed_while_it_waits_for_its_restart(caplog: pytest.LogCaptureFixture) -> None:
    before = children()
    server = ForkServer(1, command=COMMAND, restart_s=1000.0)
    await server.warm_up()
    (pid,) = set(children()) - set(before)
    os.kill(int(pid), signal.SIGKILL)
    await until(lambda: "the fork server died" in caplog.text, "the death is seen")
    async with asyncio.timeout(5):
        await server.close()
    assert children() == before


async def test_a_fork_server_can_be_closed_while_it_starts() -> None:
    before = children()
    server = ForkServer(1, command=COMMAND)
    starting = asyncio.create_task(server.warm_up())
    await asyncio.sleep(0.05)
    await server.close()
    await starting
    assert children() == before


@pytest.mark.parametrize(
    ("setting", "limit_bytes", "wanted"),
    [("auto", 2 << 30, True), ("auto", (2 << 30) - 1, False), ("on", 1 << 30, True), ("off", 64 << 30, False)],
)
async def test_a_small_machine_has_no_fork_server_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, setting: str, limit_bytes: int, wanted: bool
) -> None:
    monkeypatch.setattr(fork_server, "host_memory", lambda: HostMemory(limit_bytes=limit_bytes, available_bytes=0))
    assert fork_server.is_wanted(setting) is wanted
