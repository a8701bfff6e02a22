"""What crosses the process boundary between the front and its workers: frozen dataclasses, nothing else.

Fields hold JSON values; `blobs` holds bytes that travel beside them untouched. Times are seconds unless the name says
otherwise. `link.py` carries them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message of either direction."""

    blobs: tuple[bytes, ...] = field(default=(), repr=False)


# ---- front -> trainer ----


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


# ---- trainer -> front ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Message):
    """The worker's first message."""

    pid: int
    versions: dict[str, str]


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


# ---- front -> embedder ----


@dataclass(frozen=True, slots=True, kw_only=True)
class StartEmbedding(Message):
    """Serve on this device, with so many threads: the first message."""

    device: str
    num_threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedImages(Message):
    """Embed `blobs`, one encoded image each; or images of a data set, behind all requests that bring theirs.

    `dataset_dir` is empty, or the data set's directory: then `blobs[0]` holds rows of its snapshot, of
    `store.shards.SNAPSHOT_DTYPE`, and images that are `quarantined` are not decoded.

    `checkpoint_dir` is the checkpoint's directory, or empty for the plain backbone `backbone`, whose weights are read
    from `weights_file` where that is not empty. `time_left_s`: drop the request when so much time has passed; 0 for no
    limit.
    """

    request_id: int
    model: str
    checkpoint_dir: str
    backbone: str
    weights_file: str
    output: str
    l2_normalize: bool
    data_type: str
    time_left_s: float
    dataset_dir: str = ""
    quarantined: tuple[int, ...] = ()
    # Rows whose images took a decoder too long: each fails alone, without a look at its image.
    too_slow: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelEmbed(Message):
    """Nobody waits for this request any more: drop it if it is still queued."""

    request_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetThreads(Message):
    """Use so many threads from now on: another process wants the cores, or has gone."""

    num_threads: int


# ---- front -> previewer ----


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewImages(Message):
    """Make the views of `blobs`, one encoded image each, as a job with these settings does in this epoch. An empty blob
    is an image that was refused already."""

    settings: dict[str, Json]
    epoch: int
    # Of the reply's images together, before compression.
    max_pixel_bytes: int
    # Which of the images took a decoder too long: not to be decoded.
    too_slow: tuple[int, ...] = ()


# ---- previewer -> front ----


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewedView:
    """One view of one image. `parameters` is what `learn.views.replay.told` says."""

    pipeline: int
    size: int
    parameters: dict[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewedImage:
    """An image and its views; or the reason why there are none."""

    reason: str = ""
    message: str = ""
    image_id: int = 0
    width: int = 0
    height: int = 0
    views: tuple[PreviewedView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewDone(Message):
    """`blobs`: of each image that could be read a PNG of itself, and one of each of its views."""

    decode_size: int
    images: tuple[PreviewedImage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewFailed(Message):
    """No views at all. `code` is a canonical status name."""

    code: str
    reason: str
    message: str


# ---- embedder -> front ----


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFailed:
    """Why one row is NaN."""

    row: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedDone(Message):
    """`blobs[0]` holds the (N, D) array, little-endian, in the data type asked for."""

    request_id: int
    shape: tuple[int, int]
    errors: tuple[RowFailed, ...]
    queue_ms: float
    decode_ms: float
    forward_ms: float
    batch_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedFailed(Message):
    """The whole request failed. `code` is a canonical status name, such as "DATA_LOSS" or "RESOURCE_EXHAUSTED"."""

    request_id: int
    code: str
    reason: str
    message: str


# ---- front -> selector, which answers each with one message ----


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSource:
    """The embeddings to work on, and with what.

    `directory` is that of a `store.embeddings.EmbeddingTable`, of which the first rows are read; rows that are not
    finite are left out. `unit`: they are scaled to length 1. Without a directory there are no rows, only their number.
    """

    directory: str
    num_rows: int
    num_features: int
    unit: bool
    device: str
    num_threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectRows(Message):
    """Select rows by a strategy of `learn.selection`; those that are no parameters of it are 0.

    `count` 0 with "minimum_distance" is no bound. `balance`: "" or how many of each class are to be selected, "equal",
    "proportional" or "given". `blobs`: int64 rows that are chosen already; int64 rows that cannot be; the queries as
    int64 rows, or as float32 (Q, D); int64 class of each row, -1 for none; int64 number for each class, where given.
    """

    source: RowSource
    strategy: str
    count: int
    seed: int
    distance: float
    num_neighbors: int
    balance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindNearest(Message):
    """The `num_neighbors` nearest rows of each query. `blobs`: the queries as int64 rows, or as float32 (Q, D)."""

    source: RowSource
    num_neighbors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDuplicates(Message):
    """Groups of rows that are connected through pairs at most `max_distance` apart."""

    source: RowSource
    max_distance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPca(Message):
    """Principal components of the rows: so many, or, where that is 0, those that keep a share of the variance."""

    source: RowSource
    num_components: int
    variance_fraction: float
    whiten: bool


# ---- selector -> front ----


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsSelected(Message):
    """`blobs`: int64 (k,) rows in the order of their selection, and float32 (k,) scores, NaN for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestFound(Message):
    """`blobs`: int64 (Q, K) rows, the nearest first, and float32 (Q, K) distances."""

    num_neighbors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatesGrouped(Message):
    """`blobs`: int64 (M,) rows of all groups of two and more, group by group; int64 (M,) the first row of the group;
    float32 (M,) distance to that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PcaFitted(Message):
    """`blobs`: float32 mean (D,) and matrix (d, D): a row x becomes matrix (x - mean)."""

    variance_kept: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionFailed(Message):
    """It cannot be done. `code` is a canonical status name."""

    code: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDamaged(Message):
    """A segment of the table is not what it was: ask again when it is."""

    segment: int
