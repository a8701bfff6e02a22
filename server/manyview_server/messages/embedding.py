"""Messages between the front and an embedder."""

from __future__ import annotations

from dataclasses import dataclass

from manyview_server.messages.message import Message

# ---- front to embedder ----


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


# ---- embedder to front ----


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
