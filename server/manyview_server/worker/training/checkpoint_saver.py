"""Checkpoints of a running job: copied between two steps, and written while the next steps run."""

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
from manyview_server.store.jobs.model_card import ModelCard
from manyview_server.worker import checkpoint_state
from manyview_server.worker.channel import Sender


class CheckpointSaver:
    """Writes one checkpoint at a time, in a thread, and reports to the front when it is durable."""

    def __init__(self, channel: Sender, directory: Path, attempt: int) -> None:
        self._channel = channel
        self._directory = directory
        self._attempt = attempt
        self._writing: threading.Thread | None = None
        self._requested_s = time.monotonic()
        self.last_step = -1
        """The step of the last checkpoint that was requested."""
        self.error: OSError | None = None
        """Why the last checkpoint could not be written, or None. Read it after `wait`."""
        self.failed_in_a_row = 0
        """The number of checkpoints that failed since the last one that was written."""

    @property
    def minutes_since_last(self) -> float:
        """Minutes since the last checkpoint was requested, or since the start."""
        return (time.monotonic() - self._requested_s) / 60

    def save(
        self,
        method: Method,
        optimizer: Optimizer,
        card: ModelCard,
        run: dict[str, Any],
        probe: LinearProbe | None = None,
    ) -> None:
        """Copy all state, then write it and `run` (JSON values) as a checkpoint, in a thread.

        A failure is an alert to the job's owner, and training continues: the next checkpoint may succeed.
        """
        self.wait()
        tensors = checkpoint_state.capture(method, optimizer, probe)
        text = json.dumps({**run, "step": card.step, "epoch": card.epoch, "model": card.to_json()}, indent=1).encode()
        path = self._directory / checkpoints.name(card.step, self._attempt)
        self.last_step = card.step
        self._requested_s = time.monotonic()

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
        """Wait until the last checkpoint is written, or has failed."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None
