"""Messages between the front and a trainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from manyview_server.messages.message import Json, Message

Level = Literal["info", "warning", "error"]
Outcome = Literal["succeeded", "stopped", "failed"]
NO_LIMIT = 1 << 62

# ---- front to trainer ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """A job went over to the first `num_images` images of its data set after `step` steps, at the start of `epoch`."""

    step: int
    epoch: int
    num_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTraining(Message):
    """Train this job. `blobs` are those of the snapshot, a `store.images.snapshots.SnapshotRows`."""

    train_job: str
    attempt: int
    settings: dict[str, Json]
    dataset_dir: str
    checkpoint_dir: str
    resume_from: str
    """The directory of the checkpoint to continue from, or empty to start at step 0."""
    device: str
    num_threads: int
    cache_bytes: int
    """The most bytes of decoded images that may be kept on the device."""
    suspects: tuple[int, ...] = ()
    """The ids of images that may have killed the attempt before. Each is decoded alone, before all others."""
    quarantined: tuple[int, ...] = ()
    """The ids of images that kill decoders. They are not decoded."""
    too_slow: tuple[int, ...] = ()
    """The ids of images that took a decoder too long. They are not decoded either."""
    follows: bool = False
    """True if the job follows its data set. ImagesAdded may come then."""
    adoptions: tuple[Adoption, ...] = ()
    """The adoptions of a job that follows since the checkpoint, or since its start. An attempt repeats them at the same
    steps, and adopts new images only after that."""
    weights_dir: str = ""
    """The directory of the settings' `backbone_weights`, or empty if the server has none."""
    numerics: dict[str, Json] = field(default_factory=dict)
    """The fastest number format and memory layout, if a step timer has found them. A checkpoint's own come first."""
    planned_image_s: float = 0.0
    """The seconds for each image of a step that a step timer has measured, or 0 if it has not. The job's estimate has
    the same basis."""
    image_cache_bytes: int = NO_LIMIT
    """The most bytes of decoded images that may be kept on the device and in memory together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesAdded(Message):
    """Images were added to the data set that a job follows. `blobs` are those of their `SnapshotRows`."""

    dataset_dir: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopTraining(Message):
    """Stop at the next step boundary, write a checkpoint, and answer TrainingEnded(outcome="stopped")."""


# ---- trainer to front ----


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStarted(Message):
    """The model is ready, and the first step follows. `resolved` holds the values chosen for "auto" settings."""

    step: int
    num_steps: int
    num_epochs: int
    resolved: dict[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat(Message):
    """A sign of life and the progress, sent every second in every `stage` ("decoding", "training", …)."""

    stage: str
    step: int
    num_steps: int
    epoch: int
    num_epochs: int
    eta_s: float
    rss_bytes: int
    done: int = 0
    """A count that rises while the stage makes progress."""
    images_done: int = 0
    images_total: int = 0
    """The images that the stage has done, and those that it must do. Both are 0 for a stage that counts none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarsLogged(Message):
    """The scalars of one step."""

    step: int
    epoch: int
    values: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogWritten(Message):
    """A log line for the job's owner."""

    step: int
    epoch: int
    level: Level
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRaised(Message):
    """The job's owner should look at something. `reason` is UPPER_SNAKE."""

    step: int
    epoch: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotAdopted(Message):
    """After `step`, the job trains on the first `num_images` images, which are `num_added` more than before."""

    step: int
    epoch: int
    num_images: int
    num_added: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUnreadable(Message):
    """A committed image cannot be decoded."""

    image_id: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointWritten(Message):
    """A checkpoint is durable under `directory`. `model` describes it (see `store.jobs.model_card.ModelCard`)."""

    step: int
    epoch: int
    directory: str
    num_bytes: int
    model: dict[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingEnded(Message):
    """The trainer's last message. The texts explain a failure."""

    outcome: Outcome
    step: int
    epoch: int
    reason: str = ""
    message: str = ""
    hint: str = ""
