"""Checkpoints of a running job: copied between two steps, written beside the next ones."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from manyview_server import failpoints
from manyview_server.learn.evaluation.linear_probe import LinearProbe
from manyview_server.learn.methods import Method
from manyview_server.learn.optimizers import Optimizer
from manyview_server.messages.training import AlertRaised, CheckpointWritten
from manyview_server.store.jobs import checkpoints
from manyview_server.store.jobs.checkpoints import ModelCard
from manyview_server.worker import checkpoint_state
from manyview_server.worker.channel import Channel


class CheckpointSaver:
    """Writes one checkpoint at a time, in a thread, and tells the front when it is durable."""

    def __init__(self, channel: Channel, directory: Path, attempt: int) -> None:
        self._channel = channel
        self._directory = directory
        self._attempt = attempt
        self._writing: threading.Thread | None = None
        self._asked_at = time.monotonic()
        self.last_step = -1
        """Of the last checkpoint that was asked for."""
        self.error: OSError | None = None
        """Why the last one could not be written, if so. To be read after `wait`."""
        self.failed_in_a_row = 0

    @property
    def minutes_since_last(self) -> float:
        """Since the last checkpoint was asked for, or since the start."""
        return (time.monotonic() - self._asked_at) / 60

    def save(
        self,
        method: Method,
        optimizer: Optimizer,
        card: ModelCard,
        run: dict[str, Any],
        probe: LinearProbe | None = None,
    ) -> None:
        """Write all state and `run` (JSON values) as a checkpoint; returns once it is copied.

        A failure is an alert to the job's owner, and training goes on: the next one may succeed.
        """
        self.wait()
        tensors = checkpoint_state.capture(method, optimizer, probe)
        text = json.dumps({**run, "step": card.step, "epoch": card.epoch, "model": card.to_json()}, indent=1).encode()
        path = self._directory / checkpoints.name(card.step, self._attempt)
        self.last_step = card.step
        self._asked_at = time.monotonic()

        def write() -> None:
            try:
                failpoints.reach("saver.write", card.step)
                manifest = checkpoint_state.write(path, tensors, text)
            except OSError as error:
                self.error = error
                self.failed_in_a_row += 1
                message = f"the checkpoint of step {card.step} could not be written: {error.strerror}"
                alert = AlertRaised(step=card.step, epoch=card.epoch, reason="CHECKPOINT_FAILED", message=message)
                self._channel.send(alert)
                return
            self.error = None
            self.failed_in_a_row = 0
            self._channel.send(
                CheckpointWritten(
                    step=card.step,
                    epoch=card.epoch,
                    directory=str(path),
                    num_bytes=checkpoints.num_bytes(manifest),
                    model=card.to_json(),
                )
            )

        self._writing = threading.Thread(target=write, name="checkpoint", daemon=True)
        self._writing.start()

    def wait(self) -> None:
        """Until the last one is written, or has failed."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None
