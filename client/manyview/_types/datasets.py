"""Data sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from manyview._progress.words import number_of
from manyview._types.uploads import UploadReport


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

    def __repr__(self) -> str:
        more = {
            "label" if self.num_labels == 1 else "labels": self.num_labels,
            "refused": self.num_rejected,
            "unreadable": self.num_unreadable,
        }
        texts = (f", {count:,} {word}" for word, count in more.items() if count)
        size = f"{number_of(self.num_images, 'image')}, {self.num_bytes / 1e6:,.1f} MB"
        return f"<manyview.Dataset {self.name}: {size}{''.join(texts)}>"

    @property
    def id(self) -> str:
        return self.name.removeprefix("datasets/")
