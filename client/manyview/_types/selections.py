"""Images that a strategy selected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from manyview._progress.words import number_of
from manyview._types.html_table import html_table
from manyview._types.images import ImageError, StoredImage
from manyview._types.uploads import SkippedFiles
from manyview._types.words import Strategy


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
    used. The images were selected from the first `version` images of the data set. `errors` names the images to
    resemble that could not be used, by their keys, and `skipped` counts the files that were passed over in folders."""

    samples: tuple[Sample, ...] = field(repr=False)
    dataset: str
    strategy: Strategy
    checkpoint: str
    version: int
    errors: Mapping[str, ImageError] = field(default_factory=dict)
    skipped: tuple[SkippedFiles, ...] = ()

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
        errors = f", {number_of(len(self.errors), 'error')}" if self.errors else ""
        images = number_of(len(self), "image")
        return f"<manyview.Selection {images} of {self.dataset} by {self.strategy}{source}{errors}>"

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
