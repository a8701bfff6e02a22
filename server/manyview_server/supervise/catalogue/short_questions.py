"""Ask a short-lived worker, which has torch, a question about networks. It answers with one JSON document."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from manyview_server.supervise.process import WORKER_COMMAND, Forks, WorkerProcess, describe_exit
from manyview_server.system import awake_time

log = logging.getLogger(__name__)


class ShortQuestions:
    """Starts a worker for each question."""

    def __init__(
        self, *, forks: Forks | None = None, command: Sequence[str] = WORKER_COMMAND, deadline_s: float
    ) -> None:
        self._forks = forks
        self._command = command
        self._deadline_s = deadline_s

    async def ask(self, *arguments: str) -> Any:
        """Return the worker's answer to these arguments.

        Raises:
            OSError: it cannot be started.
            TimeoutError: it took longer than the deadline.
            ValueError: it failed, or its answer is not JSON. The message ends with what it printed.
        """
        process = await WorkerProcess.start(
            "describe",
            num_threads=1,
            command=self._command,
            forks=self._forks,
            arguments=arguments,
            capture_stdout=True,
        )
        try:
            async with awake_time.timeout(self._deadline_s):
                status = await process.wait()
            if status:
                raise ValueError(f"{describe_exit(status)}: {process.stderr_tail.strip()[-500:]}")
            return json.loads(process.stdout)
        finally:
            await process.stop()
