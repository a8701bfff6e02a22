"""Messages between the front and a step timer."""

from __future__ import annotations

from dataclasses import dataclass, field

from manyview_server.messages.message import Json, Message

# ---- front to step timer ----


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeStep(Message):
    """Measure how long a step of a job with these settings takes, on images that are made up."""

    settings: dict[str, Json]
    num_images: int
    """The images that the job would train on. Settings that were left open are chosen by this number."""
    decode_size: int
    """Width and height in pixels of the decoded images."""
    device: str
    num_threads: int
    limit_s: float
    """No larger batch is tried after this time. The answer may come a step later."""


# ---- step timer to front ----


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimed(Message):
    """The times of a job's parts on this device."""

    batch_size: int
    """The images in a step of the job."""
    step_s: float
    """Seconds of a step: its views and the update."""
    embed_s: float
    """Seconds to embed one image, as evaluations do."""
    decode_s: float
    """Seconds of one thread to decode a JPEG of a million pixels."""
    is_disturbed: bool = False
    """True if other work had the cores for much of the measurement. Later, a step may be much faster."""
    numerics: dict[str, Json] = field(default_factory=dict)
    """The fastest number format and memory layout, as `worker.precision` names them. Empty if there was no time to try
    all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingFailed(Message):
    """Such a step cannot be made. `code` is a canonical status name."""

    code: str
    reason: str
    message: str
