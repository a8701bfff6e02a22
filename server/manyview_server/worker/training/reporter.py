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

from manyview_server.learn.evaluation.alarms import Alarm, Alarms
from manyview_server.learn.evaluation.collapse import effective_rank_of_gram
from manyview_server.learn.step import StepResult
from manyview_server.messages.training import AlertRaised, Heartbeat, ScalarsLogged
from manyview_server.worker.channel import Channel
from manyview_server.worker.evaluation import diagnostics
from manyview_server.worker.training_failed import TrainingFailed

HEARTBEAT_S = 2.0
MAX_SKIPPED_IN_A_ROW = 3
"""Steps that are not finite; one alone may be the batch's fault, so many are the run's."""


class Reading:
    """0-d tensors by name, on their way from the device to the host, and perhaps the products of features."""

    def __init__(self, values: Mapping[str, Tensor], products: Tensor | None = None) -> None:
        self._names = tuple(values)
        stacked = torch.stack([value.to(torch.float32) for value in values.values()])
        self._host = _to_host(stacked)
        self._products = None if products is None else _to_host(products)
        self._arrived: torch.cuda.Event | None = None
        if stacked.is_cuda:
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            # Without the stream, the event would be recorded on the process's current device, which may be another one.
            self._arrived.record(torch.cuda.current_stream(stacked.device))

    def get(self) -> dict[str, float]:
        """The values, and `effective_rank` where there are products. The one place where a step waits for the device,
        and for the step before it."""
        if self._arrived is not None:
            self._arrived.synchronize()
        values = dict(zip(self._names, self._host.tolist(), strict=True))
        if self._products is not None:
            values["effective_rank"] = float(effective_rank_of_gram(self._products))
        return values


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A step whose values are on their way."""

    step: int
    epoch: int
    reading: Reading
    logged: bool
    watched: bool
    """Whether its spread is among the values."""
    known: dict[str, float]
    """What needs no device."""


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
    """Sends the scalars of every n-th step, with rates over the steps since the last, and the alarms they raise."""

    def __init__(
        self, channel: Channel, *, every_steps: int, batch_size: int, alarms: Alarms, on_collapse: str = "warn"
    ) -> None:
        """`on_collapse`: whether an alarm is told ("warn"), also kept as `alarm` ("stop"), or neither ("ignore")."""
        self._channel = channel
        self._every_steps = every_steps
        self._batch_size = batch_size
        self._alarms = alarms
        self._on_collapse = on_collapse
        self.alarm: Alarm | None = None
        """Why training is to stop, if so."""
        self._pending: Pending | None = None
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
        logged = step % self._every_steps == 0
        tensors = {"loss": result.loss, "accepted": result.accepted, "gradient_norm": result.gradient_norm}
        products: Tensor | None = None
        known: dict[str, float] = {}
        watched = logged or step == self._alarms.first_step + 1  # the alarms want to know how the run began
        if watched:
            tensors |= diagnostics.spread(result)
        if logged:
            tensors |= diagnostics.geometry(result, self._batch_size) | result.scalars
            products = diagnostics.products(result, self._batch_size)
            known = self._rates()
            known["learning_rate"] = result.learning_rate
            known["memory_bytes"] = float(memory_bytes(result.loss.device))
        reading = Reading(tensors, products)
        self.flush()
        self._pending = Pending(step=step, epoch=epoch, reading=reading, logged=logged, watched=watched, known=known)

    def flush(self) -> None:
        """Report the last step now. Raises as `step_done`."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        step, epoch = pending.step, pending.epoch
        values = pending.reading.get()
        accepted = values.pop("accepted")
        if accepted:
            self._skipped_in_a_row = 0
        else:
            self._skip(step, epoch, "gradient" if math.isfinite(values["loss"]) else "loss")
        if pending.logged:
            told = values | pending.known | {"skipped_steps": float(self._skipped)}
            finite = {name: value for name, value in told.items() if math.isfinite(value)}
            self._channel.send(ScalarsLogged(step=step, epoch=epoch, values=finite))
        if accepted and pending.watched:
            self._watch(step, epoch, values)

    def _watch(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        for alarm in self._alarms.see(step, values):
            if self._on_collapse == "ignore":
                continue
            message = f"{alarm.message}. {alarm.hint}."
            self._channel.send(AlertRaised(step=step, epoch=epoch, reason=alarm.reason, message=message))
            if self._on_collapse == "stop":
                self.alarm = self.alarm or alarm

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


def _to_host(tensor: Tensor) -> Tensor:
    """A copy in pinned memory that is on its way still, where the tensor is on a GPU."""
    if not tensor.is_cuda:
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


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
