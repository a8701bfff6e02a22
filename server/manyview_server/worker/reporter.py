"""What a trainer tells of its steps, read one step late so that the device never waits for the host."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from manyview_server.learn.collapse import healthy_std, representation_std
from manyview_server.learn.step import StepResult
from manyview_server.messages import AlertRaised, Heartbeat, ScalarsLogged
from manyview_server.worker.channel import Channel

HEARTBEAT_S = 2.0
MAX_SKIPPED_IN_A_ROW = 3
"""Steps that are not finite; one alone may be the batch's fault, so many are the run's."""


class TrainingFailed(Exception):
    """Training cannot go on. `reason` is UPPER_SNAKE, `str()` a sentence, `hint` what the job's owner can do."""

    def __init__(self, reason: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.hint = hint


class Reading:
    """0-d tensors by name, on their way from the device to the host."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self._names = tuple(values)
        stacked = torch.stack([value.to(torch.float32) for value in values.values()])
        self._arrived: torch.cuda.Event | None = None
        if stacked.is_cuda:
            host = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=True)
            host.copy_(stacked, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()
            stacked = host
        self._host = stacked

    def get(self) -> dict[str, float]:
        """The values. The one place where a step waits for the device, and for the step before it."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return dict(zip(self._names, self._host.tolist(), strict=True))


@dataclass
class Progress:
    """How far a trainer is; its main thread writes, the heartbeat reads."""

    stage: str = "starting"
    step: int = 0
    num_steps: int = 0
    epoch: int = 0
    num_epochs: int = 0
    eta_s: float = 0.0
    done: int = 0


class StepReporter:
    """Sends the scalars of every n-th step, with rates over the steps since the last."""

    def __init__(self, channel: Channel, *, every_steps: int, batch_size: int) -> None:
        self._channel = channel
        self._every_steps = every_steps
        self._batch_size = batch_size
        self._pending: tuple[int, int, Reading, dict[str, float]] | None = None
        self._steps = 0
        self._waited_s = 0.0
        self._excluded_s = 0.0
        self._since = time.perf_counter()
        self._skipped = 0
        self._skipped_in_a_row = 0

    def waited_for_data(self, seconds: float) -> None:
        """So long the loop stood still for its next batch."""
        self._waited_s += seconds

    def exclude(self, seconds: float) -> None:
        """So long was spent on something that is no step, such as an evaluation."""
        self._excluded_s += seconds

    def step_done(self, step: int, epoch: int, result: StepResult) -> None:
        """Take note of step number `step`, and report the one before it.

        Raises:
            TrainingFailed: the step before was the third in a row that was not finite.
        """
        self._steps += 1
        tensors = {"loss": result.loss, "accepted": result.accepted, "gradient_norm": result.gradient_norm}
        known: dict[str, float] = {}
        if step % self._every_steps == 0:
            tensors |= {"representation_std": representation_std(result.representation), **result.scalars}
            known = self._rates()
            known["learning_rate"] = result.learning_rate
            known["healthy_std"] = healthy_std(result.representation.shape[1])
            known["memory_bytes"] = float(memory_bytes(result.loss.device))
        reading = Reading(tensors)
        self.flush()
        self._pending = step, epoch, reading, known

    def flush(self) -> None:
        """Report the last step now. Raises as `step_done`."""
        if self._pending is None:
            return
        step, epoch, reading, known = self._pending
        self._pending = None
        values = reading.get()
        if values.pop("accepted"):
            self._skipped_in_a_row = 0
        else:
            self._skip(step, epoch, "gradient" if math.isfinite(values["loss"]) else "loss")
        if known:
            values["representation_std_ratio"] = values["representation_std"] / known.pop("healthy_std")
            values |= known | {"skipped_steps": float(self._skipped)}
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            self._channel.send(ScalarsLogged(step=step, epoch=epoch, values=finite))

    def _skip(self, step: int, epoch: int, what: str) -> None:
        """Nothing of the step remains; the first one is told, and too many in a row end the training."""
        self._skipped += 1
        self._skipped_in_a_row += 1
        message = f"the {what} of step {step} is not finite: the step is skipped and changes nothing"
        if self._skipped == 1:
            self._channel.send(AlertRaised(step=step, epoch=epoch, reason="NON_FINITE_STEP", message=message))
        if self._skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
            raise TrainingFailed(
                "NON_FINITE_LOSS",
                f"the {what} of step {step} is not finite, as in the {MAX_SKIPPED_IN_A_ROW - 1} steps before it; "
                "these steps changed nothing",
                "Lower optimizer.learning_rate, lengthen optimizer.warmup_epochs, or set precision to float32.",
            )

    def _rates(self) -> dict[str, float]:
        elapsed_s = max(1e-9, time.perf_counter() - self._since - self._excluded_s)
        rates = {
            "images_per_second": self._steps * self._batch_size / elapsed_s,
            "step_ms": 1e3 * elapsed_s / self._steps,
            "data_wait_fraction": min(1.0, self._waited_s / elapsed_s),
        }
        self._steps, self._waited_s, self._excluded_s = 0, 0.0, 0.0
        self._since = time.perf_counter()
        return rates


def start_heartbeat(channel: Channel, progress: Progress) -> None:
    """Tell the front every 2 seconds that the process lives and how far it is, from a thread."""

    def beat() -> None:
        while True:
            channel.send(Heartbeat(**vars(progress), rss_bytes=rss_bytes()))
            time.sleep(HEARTBEAT_S)

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()


def memory_bytes(device: torch.device) -> int:
    """Memory in use: the device's by this process, or the process's own where the device is the CPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else rss_bytes()


def rss_bytes() -> int:
    """Resident memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
