"""The scalars of a trainer's steps, read one step late so that the device never waits for the host."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from manyview_server.learn.evaluation.alarms import Alarm, Alarms
from manyview_server.learn.evaluation.collapse import effective_rank_of_gram
from manyview_server.learn.step import StepResult
from manyview_server.messages.training import AlertRaised, LogWritten, ScalarsLogged
from manyview_server.worker.channel import Sender
from manyview_server.worker.evaluation import diagnostics
from manyview_server.worker.step_pace import StepPace
from manyview_server.worker.training.progress import rss_bytes
from manyview_server.worker.training_failed import TrainingFailed

MAX_SKIPPED_IN_A_ROW = 3
"""Training fails after this many steps in a row that are not finite. A single one may be the batch's fault."""


class Reading:
    """0-d tensors by name, on their way from the device to the host, and perhaps the Gram matrix of features."""

    def __init__(self, values: Mapping[str, Tensor], gram: Tensor | None = None) -> None:
        self._names = tuple(values)
        stacked = torch.stack([value.to(torch.float32) for value in values.values()])
        self._host = _to_host(stacked)
        self._gram = None if gram is None else _to_host(gram)
        self._arrived: torch.cuda.Event | None = None
        if stacked.is_cuda:
            self._arrived = torch.cuda.Event()
            # Without the stream, the event would be recorded on the process's current device, which may be another one.
            self._arrived.record(torch.cuda.current_stream(stacked.device))

    def get(self) -> dict[str, float]:
        """Return the values, and `effective_rank` if there is a Gram matrix.

        This is the sync point: the one place where a step waits for the device, and only for the step before it.
        """
        if self._arrived is not None:
            self._arrived.synchronize()
        values = dict(zip(self._names, self._host.tolist(), strict=True))
        if self._gram is not None:
            values["effective_rank"] = float(effective_rank_of_gram(self._gram))
        return values


@dataclass(frozen=True, kw_only=True)
class PendingStep:
    """A step whose values are on their way to the host."""

    step: int
    epoch: int
    reading: Reading
    logged: bool
    """Are its scalars sent?"""
    watched: bool
    """Is the spread of its features among the values, for the alarms?"""
    host_values: dict[str, float]
    """The scalars that the host knows without the device."""


class StepReporter:
    """Sends the scalars of every n-th step, with rates over the steps since the last one, and raises alarms.

    A job's first step and its last one are sent, too: people see at once that it learns, and a job of two steps has
    scalars. The alarms do not count the last step, unless it is an n-th one. If the bank has no negatives for
    the first step, its loss is 0 and says nothing: that of the second step is sent instead.
    """

    def __init__(
        self,
        channel: Sender,
        *,
        every_steps: int,
        batch_size: int,
        alarms: Alarms,
        last_step: int = 0,
        on_collapse: str = "warn",
        planned_image_s: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """
        Args:
            last_step: the last step of the job, or 0 if it is not known.
            on_collapse: an alarm is reported ("warn"), or reported and kept as `alarm` ("stop"), or neither ("ignore").
            planned_image_s: the seconds for each image of a step by which the job was planned, or 0 if it was not.
            clock: the time in seconds.
        """
        self._channel = channel
        self._every_steps = every_steps
        self._batch_size = batch_size
        self._alarms = alarms
        self._first_step = alarms.first_step + 1
        self._last_step = last_step
        self._on_collapse = on_collapse
        self._clock = clock
        self._pace = StepPace(planned_image_s * batch_size)
        self.alarm: Alarm | None = None
        """The reason why training must stop, or None."""
        self._pending: PendingStep | None = None
        self._num_steps = 0
        self._waited_s = 0.0
        self._excluded_s = 0.0
        self._rates_since_s = clock()
        self._loss_due = 0
        """The step that is sent because the first one's loss said nothing, or 0."""
        self._skipped = 0
        self._skipped_in_a_row = 0

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Count the time of the block as a wait for the next batch."""
        start_s = self._clock()
        yield
        self._waited_s += self._clock() - start_s

    @contextmanager
    def excluded(self) -> Iterator[None]:
        """Leave the time of the block out of all rates: it is spent on something else than steps."""
        start_s = self._clock()
        yield
        self._excluded_s += self._clock() - start_s

    def step_done(self, step: int, epoch: int, result: StepResult) -> None:
        """Start to read the values of step number `step`, and report the step before it.

        Raises:
            TrainingFailed: the step before was the third in a row that was not finite.
        """
        self._num_steps += 1
        watched = step % self._every_steps == 0 or step == self._first_step  # alarms compare with how the run started
        logged = watched or step in (self._last_step, self._loss_due)
        tensors = {"loss": result.loss, "accepted": result.accepted, "gradient_norm": result.gradient_norm}
        gram: Tensor | None = None
        host_values: dict[str, float] = {}
        if logged:
            tensors |= diagnostics.spread(result) | diagnostics.geometry(result, self._batch_size) | result.scalars
            gram = diagnostics.gram(result, self._batch_size)
            self._compare_with_plan(step, epoch)
            host_values = self._rates() | {
                "learning_rate": result.learning_rate,
                "memory_bytes": float(memory_bytes(result.loss.device)),
            }
        reading = Reading(tensors, gram)
        self.flush()
        self._pending = PendingStep(
            step=step, epoch=epoch, reading=reading, logged=logged, watched=watched, host_values=host_values
        )
        if step == self._first_step:  # a step may take long, and somebody is watching
            self.flush()

    def flush(self) -> None:
        """Report the last step now. Raises TrainingFailed like `step_done`."""
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
            scalars = values | pending.host_values | {"skipped_steps": float(self._skipped)}
            if values.get("chance_loss") == 0:
                del scalars["loss"]
                self._loss_due = step + 1
            finite = {name: value for name, value in scalars.items() if math.isfinite(value)}
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
        """Count a step that changed nothing. The first one is an alert; too many in a row end the training."""
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

    def _compare_with_plan(self, step: int, epoch: int) -> None:
        """Report it if the steps since the last report show that the job takes longer than planned, or no longer."""
        if step == self._first_step:
            return  # it takes longer than all others
        steps_s = self._clock() - self._rates_since_s - self._excluded_s - self._waited_s
        change = self._pace.see(self._num_steps, steps_s, steps_left=self._last_step - step)
        if change and change.is_slower:
            self._channel.send(AlertRaised(step=step, epoch=epoch, reason="SLOWER_THAN_PLANNED", message=change.text))
        elif change:
            self._channel.send(LogWritten(step=step, epoch=epoch, level="info", text=change.text))

    def _rates(self) -> dict[str, float]:
        """Return the rates over the steps since the last call."""
        elapsed_s = max(1e-9, self._clock() - self._rates_since_s - self._excluded_s)
        rates = {
            "images_per_second": self._num_steps * self._batch_size / elapsed_s,
            "step_ms": 1e3 * elapsed_s / self._num_steps,
            "data_wait_fraction": min(1.0, self._waited_s / elapsed_s),
        }
        self._num_steps, self._waited_s, self._excluded_s = 0, 0.0, 0.0
        self._rates_since_s = self._clock()
        return rates


def memory_bytes(device: torch.device) -> int:
    """Return the memory that this process uses: the device's, or its resident memory if the device is the CPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else rss_bytes()


def _to_host(tensor: Tensor) -> Tensor:
    """Return a tensor of the CPU as it is. Of a GPU's, return a copy in pinned memory, which is still on its way."""
    if not tensor.is_cuda:
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
