"""Forking workers under supervision."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from manyview_server.supervise.fork_server import ForkServer
from manyview_server.supervise.process import Forks, WorkerProcess

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
