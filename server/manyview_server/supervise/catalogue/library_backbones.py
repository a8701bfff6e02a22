"""The networks of torchvision and timm by name, for the front, which imports neither.

There are over a thousand, and importing timm takes seconds. So a worker is asked about each name once, when a job wants
it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence

from manyview_server.supervise.process import WORKER_COMMAND, Forks, WorkerProcess, describe_exit
from manyview_server.system import awake_time

DEADLINE_S = 20.0
MAX_KNOWN = 10_000

log = logging.getLogger(__name__)


class LibraryBackbones:
    """Says whether libraries have the networks that jobs name."""

    def __init__(
        self, *, forks: Forks | None = None, command: Sequence[str] = WORKER_COMMAND, deadline_s: float = DEADLINE_S
    ) -> None:
        self._forks = forks
        self._command = command
        self._deadline_s = deadline_s
        self._existing: set[str] = set()
        self._turn = asyncio.Lock()

    async def problem(self, name: str) -> str:
        """Return what is wrong with the name of a backbone, such as "timm/resnet18", or "".

        Names of our own are not looked at. If the worker fails, nothing is wrong: the trainer checks the name, too.
        """
        if "/" not in name or name in self._existing:
            return ""
        async with self._turn:
            try:
                problem = await self._ask(name)
            except (OSError, TimeoutError, ValueError, KeyError) as error:
                log.warning("cannot check the name of a backbone", extra={"backbone": name, "error": repr(error)})
                return ""
            if not problem and len(self._existing) < MAX_KNOWN:
                self._existing.add(name)
            return problem

    async def _ask(self, name: str) -> str:
        process = await WorkerProcess.start(
            "describe",
            num_threads=1,
            command=self._command,
            forks=self._forks,
            arguments=("--backbone", name),
            capture_stdout=True,
        )
        try:
            async with awake_time.timeout(self._deadline_s):
                status = await process.wait()
            if status:
                raise ValueError(f"{describe_exit(status)}: {process.stderr_tail.strip()[-500:]}")
            return str(json.loads(process.stdout)["problem"])
        finally:
            await process.stop()
