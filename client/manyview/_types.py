"""The values that the SDK hands out: plain and frozen. Times are in UTC, sizes in bytes, names are resource names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from typing import Any, Literal, overload

from manyview._progress.activity import Activity

# The words that arguments and fields may be.
JobState = Literal[
    "QUEUED",
    "STARTING",
    "RUNNING",
    "RECOVERING",
    "PAUSING",
    "PAUSED",
    "CANCELLING",
    "CANCELLED",
    "SUCCEEDED",
    "FAILED",
]
TERMINAL_STATES: frozenset[JobState] = frozenset({"CANCELLED", "SUCCEEDED", "FAILED"})

EventKind = Literal["scalars", "state", "checkpoint", "rollback", "alert", "log", "snapshot"]
LogLevel = Literal["INFO", "WARNING", "ERROR"]
ImageStatus = Literal["STORED", "REJECTED", "UNREADABLE"]
SkipReason = Literal[
    "HIDDEN",  # the name of the file, or of a folder above it, starts with a dot
    "NOT_AN_IMAGE",  # its first bytes belong to no image format
    "FORMAT_NOT_READ",  # an image of a format that the server does not read, such as HEIC
    "NOT_A_FILE",  # a socket, a pipe or a device
    "BROKEN_LINK",
    "LINK_VISITED",  # a link to a file or folder that has been found under another name
    "UNREADABLE_FILE",  # the operating system refused it
    "NO_IMAGE",  # a member of a sample that has no image
    "CAPTION",  # a text of a shard that is no label
    "OTHER_MEMBER",  # a member of a sample that is neither its image nor its label
    "LINK_IN_SHARD",  # a link to something outside of its shard
]
"""The reason why an upload passes over a file."""
HealthStatus = Literal["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"]
WeightsOrigin = Literal["trained", "file", "random"]

Output = Literal["backbone", "projection"]
DataType = Literal["float32", "float16"]
Metric = Literal["cosine", "euclidean"]
Strategy = Literal["random", "coreset", "minimum_distance", "typicality", "similarity"]
Balance = Literal["equal", "proportional"]


@dataclass(frozen=True, kw_only=True)
class ImageError:
    """The reason why an image was refused, in UPPER_SNAKE such as FORMAT_NOT_ALLOWED, and a message for people."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class RejectedImage:
    """An image of an upload that was not stored."""

    key: str
    error: ImageError


@dataclass(frozen=True, kw_only=True)
class LabelConflict:
    """A second copy of an image that came with another label. The data set keeps `first_label`."""

    key: str
    label: str
    first_key: str
    first_label: str


@dataclass(frozen=True, kw_only=True)
class SkippedFiles:
    """The files that an upload passed over for one reason: how many they are, the names of the first ones, and perhaps
    a hint that says what to do."""

    reason: SkipReason
    num_files: int
    names: tuple[str, ...]
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class UploadReport:
    """The result of an upload: what became of everything that it found.

    `num_found` = `num_stored` + `num_duplicates` + `num_rejected` + `resumed_from` + `num_skipped`. An earlier run sent
    `resumed_from` images, of which `num_rejected_before` were refused. The other numbers and the lists are of this run.
    `num_rejected` counts images that the server refused and images that could not be sent. `num_sent` images were
    acknowledged by the server, in all runs. `skipped` counts the files that were found beside the images.
    `num_recompressed` arrays and PIL images were too large as PNG and were sent as JPEG
    or WebP of high quality, so that their pixels are nearly, not exactly, those that were given; `recompressed` names
    the first of them.
    """

    upload_id: str
    num_sent: int
    num_stored: int
    num_duplicates: int
    num_rejected: int
    rejected: tuple[RejectedImage, ...] = ()
    label_conflicts: tuple[LabelConflict, ...] = ()
    resumed_from: int = 0
    num_rejected_before: int = 0
    skipped: tuple[SkippedFiles, ...] = ()
    num_recompressed: int = 0
    recompressed: tuple[str, ...] = ()

    @property
    def num_found(self) -> int:
        """The number of images and files that the upload found."""
        return self.num_stored + self.num_duplicates + self.num_rejected + self.resumed_from + self.num_skipped

    @property
    def num_skipped(self) -> int:
        """The number of files that were passed over."""
        return sum(files.num_files for files in self.skipped)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set at the time of the call. `num_images` is also its version. `Client.upload` sets `upload`."""

    name: str
    uid: str
    create_time: datetime | None
    num_images: int
    num_bytes: int
    num_labels: int
    num_labelled: int
    num_rejected: int
    num_unreadable: int
    upload: UploadReport | None = field(default=None, repr=False)

    @property
    def id(self) -> str:
        return self.name.removeprefix("datasets/")


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """An image of a data set. `error` says why an image is REJECTED or UNREADABLE."""

    image_id: str
    key: str
    label: str
    status: ImageStatus
    error: ImageError | None
    num_bytes: int
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A selected image. `score` is its distance to the nearest image that was selected before (coreset,
    minimum_distance), its distance to the nearest query (similarity), its typicality, or None."""

    image: StoredImage
    score: float | None

    @property
    def image_id(self) -> str:
        return self.image.image_id

    @property
    def key(self) -> str:
        return self.image.key


@dataclass(frozen=True, kw_only=True)
class Selection(Sequence[Sample]):
    """The selected images, in the order of their selection. `checkpoint` names the exact model, or is empty if none was
    used. The images were selected from the first `version` images of the data set."""

    samples: tuple[Sample, ...] = field(repr=False)
    dataset: str
    strategy: Strategy
    checkpoint: str
    version: int

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        return self.samples[index]

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        source = f", {self.checkpoint}" if self.checkpoint else ""
        return f"<manyview.Selection {len(self):,} images of {self.dataset} by {self.strategy}{source}>"

    def _repr_html_(self) -> str:
        rows = [
            (rank, "" if sample.score is None else f"{sample.score:.4f}", sample.image.label, sample.key)
            for rank, sample in enumerate(self, start=1)
        ]
        return html_table(("rank", "score", "label", "key"), rows)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the images."""
        return tuple(sample.key for sample in self.samples)


@dataclass(frozen=True, kw_only=True)
class Neighbor:
    """An image and its distance from the query, or from the first image of its group of near-duplicates."""

    image: StoredImage
    distance: float

    @property
    def image_id(self) -> str:
        return self.image.image_id

    @property
    def key(self) -> str:
        return self.image.key


@dataclass(frozen=True, kw_only=True)
class QueryNeighbors(Sequence[Neighbor]):
    """The images that are nearest to one query, the nearest first. `query` is its key. `error` says why it has no
    embedding and therefore no neighbors."""

    query: str
    neighbors: tuple[Neighbor, ...] = field(repr=False)
    error: ImageError | None
    checkpoint: str
    dataset: str = ""

    @overload
    def __getitem__(self, index: int) -> Neighbor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Neighbor]: ...
    def __getitem__(self, index: int | slice) -> Neighbor | Sequence[Neighbor]:
        return self.neighbors[index]

    def __len__(self) -> int:
        return len(self.neighbors)

    def __repr__(self) -> str:
        if self.error is not None:
            return f"<manyview.QueryNeighbors of {self.query!r}: {self.error.reason}>"
        span = f", {self[0].distance:.4f} to {self[-1].distance:.4f} away" if self.neighbors else ""
        return f"<manyview.QueryNeighbors of {self.query!r}: {len(self)} images{span}>"

    def _repr_html_(self) -> str:
        return _neighbors_html(self)


@dataclass(frozen=True, kw_only=True)
class DuplicateGroup(Sequence[Neighbor]):
    """Images that are nearly the same, in the order of the data set. Each is near to another image of the group.
    Distances are from the first image."""

    members: tuple[Neighbor, ...] = field(repr=False)
    checkpoint: str
    dataset: str = ""

    @overload
    def __getitem__(self, index: int) -> Neighbor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Neighbor]: ...
    def __getitem__(self, index: int | slice) -> Neighbor | Sequence[Neighbor]:
        return self.members[index]

    def __len__(self) -> int:
        return len(self.members)

    def __repr__(self) -> str:
        return f"<manyview.DuplicateGroup of {self[0].key!r}: {len(self)} images>"

    def _repr_html_(self) -> str:
        return _neighbors_html(self)


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
    """How long a job takes on the server's device, without its time in the queue. Seconds are 0 if they are not known,
    and `text` then says why."""

    total_s: float
    step_s: float
    text: str


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
        images = f"{self.dataset} ({self.num_images:,} images)"
        reason = f" {self.failure.reason}" if self.failure else ""
        return f"<manyview.TrainJobInfo {self.name} {self.state}{reason}: {what} on {images}, {self.progress}>"


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """A line of a job's log."""

    sequence: int
    time: datetime | None
    level: LogLevel
    text: str


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method of training. `config_schema` is a JSON Schema with type, default, bounds and a sentence for each
    field."""

    name: str
    title: str
    paper: str
    config_schema: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network that methods train and that can also embed untrained. `feature_dim` is that at 224 pixels, or 0 if it
    is unknown."""

    name: str
    feature_dim: int
    num_parameters: int


@dataclass(frozen=True, kw_only=True)
class PluginProblem:
    """A plugin that a package on the server registers and that cannot be used."""

    group: str
    name: str
    package: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class Methods:
    """The methods and backbones that a server can train. torchvision/NAME and timm/NAME are backbones, too."""

    methods: tuple[Method, ...]
    backbones: tuple[Backbone, ...]
    plugin_problems: tuple[PluginProblem, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Model:
    """A checkpoint or a plain backbone. `projection_dim` is 0 if there is no projection. `feature_dim` is 0 for a
    network of a library that the server has not built yet."""

    name: str
    train_job: str
    step: int
    epoch: int
    method: str
    backbone: str
    feature_dim: int
    projection_dim: int
    image_size: int
    create_time: datetime | None
    num_bytes: int
    weights: WeightsOrigin


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The server's limits on one message and one image."""

    max_message_bytes: int
    max_image_bytes: int
    max_image_pixels: int
    max_image_side: int
    max_batch_images: int


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device that the server computes on, such as "cpu" or "cuda:0"."""

    name: str
    description: str
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class ServerInfo:
    """A server's version, limits and devices."""

    version: str
    limits: Limits
    devices: tuple[Device, ...]
    start_time: datetime | None


@dataclass(frozen=True, kw_only=True)
class EmbedTiming:
    """The server's times, in milliseconds, summed over the batches."""

    queue_ms: float = 0.0
    decode_ms: float = 0.0
    forward_ms: float = 0.0


_MAX_SHOWN_ROWS = 20


def html_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return the first rows as a table for a notebook."""
    lines = ["".join(f"<th>{escape(column)}</th>" for column in columns)]
    lines += ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows[:_MAX_SHOWN_ROWS]]
    if len(rows) > _MAX_SHOWN_ROWS:
        lines.append(f'<td colspan="{len(columns)}">and {len(rows) - _MAX_SHOWN_ROWS:,} more</td>')
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _neighbors_html(found: Sequence[Neighbor]) -> str:
    rows = [(f"{one.distance:.4f}", one.image.label, one.key) for one in found]
    return html_table(("distance", "label", "key"), rows)
