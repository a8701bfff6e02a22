"""Messages between the front and a selector. A selector answers each request with one message."""

from __future__ import annotations

from dataclasses import dataclass

from manyview_server.messages.message import Message

# ---- front to selector ----


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSource:
    """The first rows of a table of embeddings, and the device and threads to work with. Rows that are not finite are
    left out."""

    directory: str
    """The directory of a `store.embeddings.tables.EmbeddingTable`. If it is empty, only the number of rows counts."""
    num_rows: int
    num_features: int
    unit: bool
    """True if the rows must be scaled to length 1."""
    device: str
    num_threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectRows(Message):
    """Select rows by a strategy of `learn.selection`. Fields that the strategy does not use are 0.

    `blobs`: int64 rows that are chosen already; int64 rows that are excluded; the queries as int64 rows; or the queries
    as float32 (Q, D); the int64 number of each class, if the balance is "given"; and, with a balance, those of the
    `store.images.snapshots.SnapshotRows`, whose labels are the classes.
    """

    source: RowSource
    strategy: str
    count: int
    """The number of rows; 0 means any number, with "minimum_distance"."""
    seed: int
    distance: float
    num_neighbors: int
    balance: str
    """"" for none, or the rule for the number of rows of each class: "equal", "proportional" or "given"."""
    dataset_dir: str = ""
    """The directory of the data set, with a balance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FindNearest(Message):
    """Find the `num_neighbors` nearest rows of each query. `blobs`: the queries as int64 rows, or as float32 (Q, D)."""

    source: RowSource
    num_neighbors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDuplicates(Message):
    """Find the groups of rows that are connected through pairs at most `max_distance` apart."""

    source: RowSource
    max_distance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPca(Message):
    """Fit principal components: `num_components`, or, if that is 0, those that keep a fraction of the variance."""

    source: RowSource
    num_components: int
    variance_fraction: float
    whiten: bool


# ---- selector to front ----


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsSelected(Message):
    """The answer to SelectRows. `blobs`: int64 (k,) rows in the order of their selection, and float32 (k,) scores. A
    score is NaN if the strategy has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestFound(Message):
    """The answer to FindNearest. `blobs`: int64 (Q, K) rows, the nearest first, and float32 (Q, K) distances."""

    num_neighbors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatesGrouped(Message):
    """The answer to GroupDuplicates. `blobs`: int64 (M,) rows of all groups of two and more, group by group; int64 (M,)
    the first row of the group; float32 (M,) the distance to that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PcaFitted(Message):
    """The answer to FitPca. `blobs`: float32 mean (D,) and matrix (d, D): a row x becomes matrix (x - mean)."""

    variance_kept: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionFailed(Message):
    """The request failed. `code` is a canonical status name."""

    code: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDamaged(Message):
    """A segment of the table is damaged. Repair it, and ask again."""

    segment: int
