"""The true sizes of a job's images, and those that cannot be read, as far as decoding has found them.

Shapes: N images of the job.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manyview_server.worker.images.decode_size import Snapshot

DARK_BITS = 14
"""An image of 16 bits that uses at most this many has at most a quarter of the brightness that it could have."""


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """An image without pixels, and the reason."""

    image_id: int
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class DarkImage:
    """An image of 16 bits per channel whose values are all small, such as 12 bits of a camera: it is nearly black."""

    image_id: int
    used_bits: int


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of decoding one image, without its pixels."""

    row: int
    image_id: int
    height: int = 0
    width: int = 0
    used_bits: int = 0
    """The bits that an image of 16 bits per channel uses; 0 for others."""
    unreadable: Unreadable | None = None


class Findings:
    """Keeps the findings of each row, and reports each unreadable image once. One thread at a time may use it."""

    def __init__(self, rows: Snapshot, on_unreadable: Callable[[Unreadable], None]) -> None:
        """The sizes of images that were not decoded yet are those of their headers."""
        self._on_unreadable = on_unreadable
        self.sizes = _sizes(rows)
        """(N, 2) uint16, height and width before resampling. No side is longer than 65,535 pixels."""
        self.is_unreadable = np.zeros(len(rows), dtype=bool)
        """(N,), True for an image that was found to be unreadable."""
        self.is_read = np.zeros(len(rows), dtype=bool)
        """(N,), True for an image that was decoded at least once."""
        self.reasons: set[str] = set()
        """The reasons why images are unreadable."""
        self.dark: list[DarkImage] = []
        """The dark images, in the order in which they were found."""

    @property
    def num_unreadable(self) -> int:
        """The number of images that were found to be unreadable."""
        return int(self.is_unreadable.sum())

    @property
    def num_read(self) -> int:
        """The number of images that were decoded, and can still be read."""
        return int((self.is_read & ~self.is_unreadable).sum())

    def grow(self, rows: Snapshot) -> None:
        """Make room for images that were added. `rows` are those of all images."""
        num_before = len(self.sizes)
        added = rows[num_before:]
        self.sizes = np.concatenate([self.sizes, _sizes(added)])
        self.is_unreadable = np.concatenate([self.is_unreadable, np.zeros(len(added), dtype=bool)])
        self.is_read = np.concatenate([self.is_read, np.zeros(len(added), dtype=bool)])

    def add(self, finding: Finding) -> None:
        """Keep what was found about a row. Another decoding of the same row adds nothing."""
        row = finding.row
        if finding.unreadable is not None:
            if not self.is_unreadable[row]:
                self.is_unreadable[row] = True
                self.reasons.add(finding.unreadable.reason)
                self._on_unreadable(finding.unreadable)
        elif not self.is_read[row]:
            self.is_read[row] = True
            self.sizes[row] = finding.height, finding.width
            if 0 < finding.used_bits <= DARK_BITS:
                self.dark.append(DarkImage(image_id=finding.image_id, used_bits=finding.used_bits))


def _sizes(rows: Snapshot) -> npt.NDArray[np.uint16]:
    sizes: npt.NDArray[np.uint16] = np.stack([rows["height"], rows["width"]], axis=1).astype(np.uint16)
    return sizes
