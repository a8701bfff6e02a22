"""Messages between the front and an embedder."""

from __future__ import annotations

from dataclasses import dataclass

from manyview_server.messages.message import Message

# ---- front to embedder ----


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelKey:
    """One output of one model. Requests with equal keys share a model in memory, and so a batch."""

    name: str
    """The exact resource name."""
    checkpoint_dir: str
    """The directory of a checkpoint, or empty for a plain backbone."""
    backbone: str
    weights_file: str
    """The file of a plain backbone's weights, or empty: its weights are random then."""
    output: str
    """"backbone", "projection", or one of `learn.backbones.TOKEN_OUTPUTS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRecipe:
    """The model that embeds images, and the form of their rows. It travels unchanged from the service to the worker."""

    model: ModelKey
    l2_normalize: bool = False
    data_type: str = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartEmbedding(Message):
    """Serve on this device, with `num_threads` threads. It is the first message."""

    device: str
    num_threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedImages(Message):
    """Embed images: those in `blobs`, one encoded image each, or images of a data set.

    With `dataset_dir`, `blobs[0]` holds rows of that data set's snapshot, of `store.images.shards.SNAPSHOT_DTYPE`. Such
    a request waits behind all requests that bring their images.
    """

    request_id: int
    recipe: EmbedRecipe
    time_left_s: float
    """The request is dropped when so much time has passed; 0 for no limit."""
    dataset_dir: str = ""
    quarantined: tuple[int, ...] = ()
    """The ids of stored images that must not be decoded, because they kill the decoder."""
    too_slow: tuple[int, ...] = ()
    """The rows whose images took a decoder too long. Each of them fails alone, without being decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelEmbed(Message):
    """Drop this request if it is still queued, because nobody waits for it any more."""

    request_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetThreads(Message):
    """Use `num_threads` threads from now on, because another process needs the cores, or has ended."""

    num_threads: int


# ---- embedder to front ----


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFailed:
    """The reason for which one row is NaN."""

    row: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedDone(Message):
    """The answer: `blobs[0]` holds the (N, D) array, little-endian, in the data type of the recipe."""

    request_id: int
    shape: tuple[int, int]
    token_dim: int = 0
    """The width of a token if each row is a list of tokens, one after the other."""
    errors: tuple[RowFailed, ...]
    queue_ms: float
    decode_ms: float
    forward_ms: float
    batch_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedFailed(Message):
    """The whole request failed. `code` is a canonical status name, such as DATA_LOSS or RESOURCE_EXHAUSTED."""

    request_id: int
    code: str
    reason: str
    message: str
