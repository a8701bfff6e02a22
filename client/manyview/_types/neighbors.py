"""Images that are near to others: neighbors of queries, and groups of near-duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import overload

from manyview._progress.words import number_of
from manyview._types.html_table import html_table
from manyview._types.images import ImageError, StoredImage


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
        return f"<manyview.QueryNeighbors of {self.query!r}: {number_of(len(self), 'image')}{span}>"

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
        return f"<manyview.DuplicateGroup of {self[0].key!r}: {number_of(len(self), 'image')}>"

    def _repr_html_(self) -> str:
        return _neighbors_html(self)


def _neighbors_html(found: Sequence[Neighbor]) -> str:
    rows = [(f"{one.distance:.4f}", one.image.label, one.key) for one in found]
    return html_table(("distance", "label", "key"), rows)
