"""The records of the store: frozen dataclasses that mirror the messages of the contract.

An id is the last part of a resource name ("clothing", not "datasets/clothing"). A time is in seconds since 1970, or 0
if it has not come yet. States and statuses are the names of the contract without their prefix ("RUNNING", "STORED").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from manyview_server.store.event_payloads import EventKind, Payload
from manyview_server.store.job_states import TERMINAL_STATES, Desired, JobState

Json = Any
ImageStatus = Literal["STORED", "UNREADABLE", "REJECTED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set. `uid` names its directory. Images are only ever added, so `num_images` is also its version."""

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
    """The state of an upload.

    `digest` is the chained digest of all committed images, 32 bytes, or empty before the first.
    """

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
    """An image that passed every check that needs no decoding. `sha256` is the digest of `data`.

    `extension` names its format (see `image_header.ImageHeader`). Width and height are in pixels, after orientation.
    """

    data: bytes | memoryview = field(repr=False)
    key: str
    label: str
    sha256: bytes
    extension: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedImage:
    """An image that was refused. `sha256` is the client's claim, which the chained digest needs."""

    key: str
    label: str
    sha256: bytes
    reason: str
    message: str
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOutcome:
    """The result for one image of a batch.

    `image_id` is 0 if the image was rejected. A duplicate has the key of the first copy, and its label if it differs.
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
    """An image in the listing of a data set. Unreadable and rejected images have a reason.

    `image_id`, `width` and `height` of a rejected image are 0.
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
    """A reference to an image by its id, or by its key if the id is 0."""

    image_id: int = 0
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImage:
    """A committed image and its place. `position` counts from 0, like the rows of a snapshot."""

    record: ImageRecord
    position: int
    shard: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a job failed: a reason in UPPER_SNAKE, a sentence, and what to do about it."""

    reason: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """The work of a job's trainer at the moment: `kind` is the contract's name, or "" if it is not known. `done` of
    `total` images are done; both are 0 for work that has no such count."""

    kind: str = ""
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a job. `eta_s` is 0 while it is unknown. `activity` is not saved: another attempt does something
    else."""

    step: int = 0
    num_steps: int = 0
    epoch: int = 0
    num_epochs: int = 0
    eta_s: float = 0.0
    activity: Activity = Activity()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A train job. `desired` is what the user wants, and `state` is what the job does.

    `uid` names its directory. `settings` is the resolved configuration. `restarts` counts restarts of the trainer since
    the newest checkpoint. `latest_checkpoint` is the step of that checkpoint, or -1 for none. `continued_from` names
    the checkpoint that the job started from, or is empty. `min_images` is above 0 for a job that follows its data set.
    Then `num_images` is the number of images that it has adopted, 0 before its first start, and `num_available` is the
    number of images that its data set holds while the job is QUEUED.
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
    num_available: int
    server_version: str
    continued_from: str
    min_images: int

    @property
    def terminal(self) -> bool:
        """Is the state final?"""
        return self.state in TERMINAL_STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A durable checkpoint of a job. `model` is its `ModelCard` as JSON values.

    A checkpoint is `pinned` once an answer has named it. Retention then keeps it.
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
        """The resource name, "trainJobs/{id}/checkpoints/{step}"."""
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
