"""Training jobs in this process: the messages that they send, and jobs with other settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from manyview_server.messages.message import Message
from manyview_server.messages.training import CheckpointWritten, ScalarsLogged, StartTraining
from manyview_server.store.jobs import checkpoints
from manyview_server.worker.training.trainer import Trainer

FIXED = {"precision": "float32", "memory_format": "channels_last"}
"""Settings that leave nothing to timing, so that two runs of a job compute the same."""

TIMED = {"step_ms", "images_per_second", "data_wait_fraction", "memory_bytes"}


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


def trained(start: StartTraining) -> Sent:
    """Train a job to its end."""
    sent = Sent()
    assert Trainer(sent, start).train() == "succeeded"
    return sent


def scalars(*attempts: Sent, after: int = 0) -> list[tuple[int, dict[str, float]]]:
    """Return everything that the attempts measured after a step, in order, but what depends on the clock."""
    return [
        (m.step, {name: value for name, value in m.values.items() if name not in TIMED})
        for sent in attempts
        for m in sent.of(ScalarsLogged)
        if m.step > after
    ]


def last_files(sent: Sent) -> list[bytes]:
    """Return the tensors of the last checkpoint."""
    directory = Path(sent.of(CheckpointWritten)[-1].directory)
    return [(directory / name).read_bytes() for name in (checkpoints.BACKBONE, checkpoints.STATE)]


def changed(start: StartTraining, settings: dict[str, Any], directory: Path, **fields: Any) -> StartTraining:
    values = {name: getattr(start, name) for name in start.__dataclass_fields__}
    return StartTraining(
        **{**values, "settings": {**start.settings, **settings}, "checkpoint_dir": str(directory), **fields}
    )
