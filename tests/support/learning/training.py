"""Training jobs in this process: the messages that they send, and jobs with other settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from manyview_server.messages.message import Message
from manyview_server.messages.training import ScalarsLogged, StartTraining

FIXED = {"precision": "float32", "memory_format": "channels_last"}
"""Settings that leave nothing to timing, so that two runs of a job compute the same."""


class Sent:
    """A channel that keeps the messages that are sent, and may react to them."""

    def __init__(self, react: Callable[[Message], None] = lambda _: None) -> None:
        self.received: list[Message] = []
        self._react = react

    def send(self, message: Message) -> None:
        self.received.append(message)
        self._react(message)

    def of(self, kind: type) -> list[Any]:
        return [message for message in self.received if isinstance(message, kind)]


def losses(job: Any) -> dict[int, float]:
    return {m.step: m.values["loss"] for m in job.of(ScalarsLogged) if "loss" in m.values}


def changed(start: StartTraining, settings: dict[str, Any], directory: Path, **fields: Any) -> StartTraining:
    values = {name: getattr(start, name) for name in start.__dataclass_fields__}
    return StartTraining(
        **{**values, "settings": {**start.settings, **settings}, "checkpoint_dir": str(directory), **fields}
    )
