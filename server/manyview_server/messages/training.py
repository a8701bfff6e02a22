"""Messages between the front and a trainer."""

from __future__ import annotations

from dataclasses import dataclass

from manyview_server.messages.message import Json, Message

# ---- front to trainer ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """After `step` steps, at the beginning of `epoch`, a job went over to the first `num_images` images."""

    step: int
    epoch: int
    num_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTraining(Message):
    """Train this job. `blobs[0]` is the data set's snapshot: the bytes of an array of `store.shards.SNAPSHOT_DTYPE`."""

    train_job: str
    attempt: int
    settings: dict[str, Json]
    dataset_dir: str
    checkpoint_dir: str
    # The checkpoint's directory to continue from; empty to begin.
    resume_from: str
    device: str
    num_threads: int
    # For the cache of decoded images.
    cache_bytes: int
    # Images that may have killed the attempt before: to be decoded alone, before all others.
    suspects: tuple[int, ...] = ()
    # Images that do kill decoders: not to be decoded.
    quarantined: tuple[int, ...] = ()
    # Images that took a decoder too long: not to be decoded either.
    too_slow: tuple[int, ...] = ()
    # Whether the job follows its data set: then ImagesAdded may come.
    follows: bool = False
    # What such a job has adopted since the checkpoint, or since its beginning: an attempt adopts the same at the same
    # steps again, and only then what is new.
    adoptions: tuple[Adoption, ...] = ()
    # Where the settings' `backbone_weights` are; empty where there is no such directory.
    weights_dir: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesAdded(Message):
    """The data set that a job follows has grown: `blobs[0]` holds the rows behind those that were sent before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopTraining(Message):
    """Stop at the next step boundary, write a checkpoint, answer TrainingEnded(outcome="stopped")."""


# ---- trainer to front ----


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStarted(Message):
    """Model and cache are ready; the first step follows. `resolved` holds what was chosen at start (auto fields)."""

    step: int
    num_steps: int
    num_epochs: int
    resolved: dict[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat(Message):
    """Alive, and how far. Sent every 2 seconds, whatever the trainer is doing (`stage`: "decoding", "training", …)."""

    stage: str
    step: int
    num_steps: int
    epoch: int
    num_epochs: int
    eta_s: float
    rss_bytes: int
    # Of what the stage does, such as images decoded: it rises while there is progress.
    done: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarsLogged(Message):
    """Scalars of one step."""

    step: int
    epoch: int
    values: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogWritten(Message):
    """A log line for the job's owner. `level`: "info", "warning" or "error"."""

    step: int
    epoch: int
    level: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRaised(Message):
    """Something the job's owner should look at. `reason` is UPPER_SNAKE."""

    step: int
    epoch: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotAdopted(Message):
    """From the step after `step` on, the job trains on the first `num_images` images, `num_added` more than before."""

    step: int
    epoch: int
    num_images: int
    num_added: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUnreadable(Message):
    """A committed image that does not decode."""

    image_id: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointWritten(Message):
    """A checkpoint is durable under `directory`. `model` describes it (see `store.checkpoints.ModelCard`)."""

    step: int
    epoch: int
    directory: str
    num_bytes: int
    model: dict[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingEnded(Message):
    """The trainer's last message. `outcome`: "succeeded", "stopped" or "failed"; the rest says why it failed."""

    outcome: str
    step: int
    epoch: int
    reason: str = ""
    message: str = ""
    hint: str = ""
