"""Train jobs at the time of a call, and lines of their logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from manyview._progress.activity import Activity
from manyview._progress.words import number_of
from manyview._types.words import TERMINAL_STATES, JobState, LogLevel


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The reason why a job failed, a message for people, and a hint that says what to do."""

    reason: str
    message: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a job. `eta_s` is 0 while it is unknown. `activity` is None while a job is paused, and once it
    has ended."""

    step: int
    num_steps: int
    epoch: int
    num_epochs: int
    eta_s: float
    activity: Activity | None = None

    def __str__(self) -> str:
        steps = f"{self.step}/{self.num_steps}" if self.num_steps else str(self.step)
        return f"step {steps}, epoch {self.epoch}"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """An estimate of how long a job takes on the server's device, without its time in the queue. Seconds are 0 if they
    are not known, and `text` then says why."""

    total_s: float
    step_s: float
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True)
class TrainJobInfo:
    """A train job at the time of the call. `config` is complete: it has every parameter, also the defaults.
    `continued_from` names the checkpoint that it started from, if any. `min_images` is above 0 if it follows its data
    set. `estimate` is how long it takes, and `choice` says which settings were chosen because they were left open, and
    why; only `Client.train` and `Client.plan` set these two."""

    name: str
    uid: str
    dataset: str
    num_images: int
    config: Mapping[str, Any]
    state: JobState
    failure: Failure | None
    progress: Progress
    create_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None
    attempt: int
    last_sequence: int
    latest_checkpoint: str
    queue_position: int
    server_version: str
    continued_from: str
    min_images: int
    estimate: Estimate | None = None
    choice: str = ""

    @property
    def id(self) -> str:
        return self.name.removeprefix("trainJobs/")

    @property
    def is_terminal(self) -> bool:
        return self.state in TERMINAL_STATES

    @property
    def doing(self) -> str:
        """The work of the job in words, such as "waiting in the queue behind 2" or "decoding 1,200 of 3,068 images".
        Empty while it is paused, and once it has ended."""
        activity = self.progress.activity
        if activity is None:
            return ""
        if activity.kind == "WAITING_FOR_DEVICE" and self.queue_position:
            return f"waiting in the queue behind {self.queue_position}"
        return str(activity)

    def __repr__(self) -> str:
        what = f"{self.config.get('method', '')} {self.config.get('backbone', '')}".strip()
        images = f"{self.dataset} ({number_of(self.num_images, 'image')})"
        reason = f" {self.failure.reason}" if self.failure else ""
        return f"<manyview.TrainJobInfo {self.name} {self.state}{reason}: {what} on {images}, {self.progress}>"


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """A line of a job's log."""

    sequence: int
    time: datetime | None
    level: LogLevel
    text: str
