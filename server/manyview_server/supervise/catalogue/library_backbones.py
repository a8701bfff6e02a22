"""The networks of torchvision and timm by name, for the front, which imports neither.

There are over a thousand, and importing timm takes seconds. So a worker is asked about each name once, when a job wants
it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from manyview_server.configuration.networks.preprocessing import Preprocessing
from manyview_server.supervise.catalogue.short_questions import ShortQuestions
from manyview_server.supervise.process import WORKER_COMMAND, Forks

DEADLINE_S = 20.0
MAX_KNOWN = 10_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryBackbone:
    """A network of a library, as far as it is known."""

    problem: str = ""
    """The reason why there is no such network; empty if there is one."""
    preprocessing: Preprocessing | None = None
    """The preparation of images by the authors of its weights; None if nobody says so."""


class LibraryBackbones:
    """Describes the networks of libraries that jobs and models name."""

    def __init__(
        self, *, forks: Forks | None = None, command: Sequence[str] = WORKER_COMMAND, deadline_s: float = DEADLINE_S
    ) -> None:
        self._questions = ShortQuestions(forks=forks, command=command, deadline_s=deadline_s)
        self._existing: dict[str, LibraryBackbone] = {}
        self._turn = asyncio.Lock()

    async def problem(self, name: str) -> str:
        """Return what is wrong with the name of a backbone, such as "timm/resnet18", or "".

        Names of our own are not looked at. If the worker fails, nothing is wrong: the trainer checks the name, too.
        """
        if "/" not in name:
            return ""
        found = await self.find(name)
        return found.problem if found else ""

    async def find(self, name: str) -> LibraryBackbone | None:
        """Return what is known of a network of a library, or None if the worker fails."""
        if known := self._existing.get(name):
            return known
        async with self._turn:
            try:
                found = await self._ask(name)
            except (OSError, TimeoutError, ValueError, KeyError, TypeError, AttributeError) as error:
                log.warning("cannot check the name of a backbone", extra={"backbone": name, "error": repr(error)})
                return None
            if not found.problem and len(self._existing) < MAX_KNOWN:
                self._existing[name] = found
            return found

    async def _ask(self, name: str) -> LibraryBackbone:
        values = await self._questions.ask("--backbone", name)
        stated = values.get("preprocessing")
        preprocessing = Preprocessing.from_json(stated, stated["source"]) if stated else None
        return LibraryBackbone(problem=str(values["problem"]), preprocessing=preprocessing)
