"""Forking workers under supervision."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from manyview_server.supervise.fork_server import ForkServer
from manyview_server.supervise.process import Forks, WorkerProcess
from support.learning.forked import children

EXIT = 7
"""The exit status of a forking worker whose link has ended."""


class Used:
    """Counts the workers that are forked."""

    def __init__(self, forks: ForkServer) -> None:
        self._forks = forks
        self.pids: list[int] = []

    async def fork(self, *arguments: Any) -> int:
        self.pids.append(await self._forks.fork(*arguments))
        return self.pids[-1]


@asynccontextmanager
async def forking(command: tuple[str, ...]) -> AsyncIterator[ForkServer]:
    """A fork server of this command, which leaves no process behind."""
    server = ForkServer(2, command=command, restart_s=0.01)
    await server.warm_up()
    yield server
    await server.close()
    assert not children()


async def start(command: tuple[str, ...], forks: Forks | None, *arguments: str, num_threads: int = 2) -> WorkerProcess:
    return await WorkerProcess.start(
        "selector", num_threads=num_threads, command=command, forks=forks, arguments=arguments, capture_stdout=True
    )


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(40):
        while not condition():
            await asyncio.sleep(0.02)


async def reported(process: WorkerProcess) -> None:
    await until(lambda: process.stdout.endswith("\n") or not process.running, "the worker has reported")
    assert process.stdout, process.stderr_tail
