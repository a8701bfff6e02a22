"""Check whether the weights that a job wants to start with fit its network, for the front, which has no torch."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from manyview_server.supervise.catalogue.short_questions import ShortQuestions
from manyview_server.supervise.process import WORKER_COMMAND, Forks

DEADLINE_S = 20.0

log = logging.getLogger(__name__)


class WeightsCheck:
    """Has a worker build the network and load the weights, and throw both away."""

    def __init__(
        self, *, forks: Forks | None = None, command: Sequence[str] = WORKER_COMMAND, deadline_s: float = DEADLINE_S
    ) -> None:
        self._questions = ShortQuestions(forks=forks, command=command, deadline_s=deadline_s)

    async def problem(self, weights_dir: Path, settings: Mapping[str, Any]) -> str:
        """Return why a job of these settings cannot start with its `backbone_weights`, or "".

        If the worker fails or takes too long, as with a file of gigabytes, nothing is wrong: the trainer looks, too.
        """
        try:
            arguments = ("--weights-of", json.dumps(settings), "--weights-dir", str(weights_dir))
            return str((await self._questions.ask(*arguments))["problem"])
        except (OSError, TimeoutError, ValueError, KeyError, TypeError) as error:
            log.warning("cannot check the weights of a job", extra={"error": repr(error)})
            return ""
