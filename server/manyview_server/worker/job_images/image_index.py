"""The images of a data set by row: where each is stored, its id and its label. Nothing is decoded for it.

Shapes: N images.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from manyview_server.worker.images.decode_size import Snapshot


@dataclass(frozen=True, eq=False)
class ImageIndex:
    """The first N images of a data set, in the order in which they were committed. Row numbers never change."""

    rows: Snapshot = field(repr=False)
    """(N,), see `store.images.shards.SNAPSHOT_DTYPE`."""

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def image_ids(self) -> Tensor:
        """(N,) int64."""
        return torch.from_numpy(self.rows["image_id"].astype(np.int64))

    @cached_property
    def labels(self) -> Tensor:
        """(N,) int64, -1 for an image without a label."""
        return torch.from_numpy(self.rows["label"].astype(np.int64))

    @cached_property
    def num_classes(self) -> int:
        """Labels are numbered from 0 in the order in which they first appeared."""
        return int(self.labels.max()) + 1 if len(self) else 0

    def first(self, num_images: int) -> ImageIndex:
        """Return the first rows alone."""
        return self if num_images == len(self) else ImageIndex(self.rows[:num_images])

    def extended(self, rows: Snapshot) -> ImageIndex:
        """Return these images and, behind them, those of `rows`."""
        return ImageIndex(np.concatenate([self.rows, rows]))
