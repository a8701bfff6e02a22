"""What the store holds, as frozen dataclasses that mirror the contract's messages.

Ids are the bare ids of the resource names ("clothing", not "datasets/clothing"). Times are seconds since 1970, 0 where
not yet. States and statuses are the contract's enum names without their prefix ("RUNNING", "STORED").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from manyview_server.store.event_payloads import EventKind, Payload
from manyview_server.store.job_states import TERMINAL_STATES, Desired, JobState

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Json = Any
ImageStatus = Literal["STORED", "UNREADABLE", "REJECTED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set. `num_images` is also its version: images are only ever added. `uid` names its directory."""

    dataset_id: str
    uid: str
    create_time: float
    num_images: int
    num_bytes: int
    num_labels: int
    num_labelled: int
    num_rejected: int
    num_unreadable: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An upload's cursor. `digest` is chained over all images of the committed batches, 32 bytes; empty before."""

    dataset_id: str
    upload_id: str
    committed_number: int
    num_images: int
    num_stored: int
    num_duplicates: int
    num_rejected: int
    finished: bool
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedImage:
    """An image that passed every check that needs no decoding: `sha256` is that of `data`.

    `extension` names its format ("jpg", "png", "webp", "ppm"); width and height are pixels after orientation.
    """

    data: bytes = field(repr=False)
    key: str
    label: str
    sha256: bytes
    extension: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedImage:
    """An image that is refused: `sha256` is what the client says (the digest chain needs it), the rest tells people."""

    key: str
    label: str
    sha256: bytes
    reason: str
    message: str
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOutcome:
    """What became of one image of a batch. `outcome`: "STORED", "DUPLICATE" or "REJECTED".

    `image_id` is 0 where rejected. A duplicate names the first copy's key, and its label where that differs.
    """

    outcome: Literal["STORED", "DUPLICATE", "REJECTED"]
    image_id: int = 0
    first_key: str = ""
    first_label: str = ""
    label_differs: bool = False
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """A line of a data set's listing. `status`: "STORED", "UNREADABLE" or "REJECTED"; the last two have a reason.

    A rejected image has neither `image_id` nor size in pixels: they are 0.
    """

    image_id: int
    key: str
    label: str
    status: ImageStatus
    num_bytes: int
    width: int
    height: int
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """An image as a caller names it: by its id, or by its key where the id is 0."""

    image_id: int = 0
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImage:
    """A committed image and where it lies. `position` counts from 0, as the rows of a snapshot do."""

    record: ImageRecord
    position: int
    shard: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The first `version` images of a data set in the order of their commit, or the last ones of these.

    `array` (N,) is of `shards.SNAPSHOT_DTYPE`; its label is an index into `labels`, or -1 for none. Labels are in the
    order in which they first appeared, so that an index stays what it is as the data set grows.
    """

    dataset: Dataset
    version: int
    array: npt.NDArray[np.void]
    labels: tuple[str, ...]

    @property
    def blob(self) -> bytes:
        """Return the rows for a message to a worker, uncopied: a view, which a link sends like bytes."""
        return cast(bytes, memoryview(cast(Any, self.array.view("u1"))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a job failed: UPPER_SNAKE reason, a sentence, and what to do about it."""

    reason: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is. `eta_s` is 0 while unknown."""

    step: int = 0
    num_steps: int = 0
    epoch: int = 0
    num_epochs: int = 0
    eta_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A train job. `desired` ("run", "pause" or "cancel") is the user's will, `state` what is so.

    `uid` names its directory. `settings` is the resolved configuration. `restarts` counts restarts of the trainer since
    the newest checkpoint. `latest_checkpoint` is that checkpoint's step, or -1 for none. `continued_from` names the
    checkpoint that it began with, or is empty. `min_images` is above 0 for a job that follows its data set; then
    `num_images` is what it has adopted so far, 0 before its first start.
    """

    train_job_id: str
    uid: str
    dataset_id: str
    dataset_uid: str
    num_images: int
    method: str
    settings: dict[str, Json]
    state: JobState
    desired: Desired
    failure: Failure | None
    progress: Progress
    create_time: float
    start_time: float
    end_time: float
    attempt: int
    restarts: int
    last_sequence: int
    latest_checkpoint: int
    queue_position: int
    server_version: str
    continued_from: str
    min_images: int

    @property
    def terminal(self) -> bool:
        """Whether the state is final."""
        return self.state in TERMINAL_STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A durable checkpoint of a job. `model` is its `checkpoints.ModelCard` as a dict.

    `pinned`: an answer named it, so that retention keeps it.
    """

    train_job_id: str
    step: int
    epoch: int
    attempt: int
    directory: str
    num_bytes: int
    create_time: float
    pinned: bool
    model: dict[str, Json]

    @property
    def name(self) -> str:
        """The resource name: "trainJobs/{id}/checkpoints/{step}"."""
        return f"trainJobs/{self.train_job_id}/checkpoints/{self.step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event before it is logged."""

    payload: Payload
    step: int = 0
    epoch: int = 0
    attempt: int = 0

    @property
    def kind(self) -> EventKind:
        """The kind of the payload."""
        return self.payload.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A logged event, durable before anyone sees it. `sequence` is contiguous from 1 within its job."""

    sequence: int
    time: float
    attempt: int
    step: int
    epoch: int
    payload: Payload

    @property
    def kind(self) -> EventKind:
        """The kind of the payload."""
        return self.payload.kind
