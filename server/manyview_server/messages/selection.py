"""Messages between the front and a selector, which answers each request with one message."""

from __future__ import annotations

from dataclasses import dataclass

from manyview_server.messages.message import Message

# ---- front to selector ----


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


# ---- selector to front ----


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
