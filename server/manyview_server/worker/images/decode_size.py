"""The side of the squares to which a job's images are decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Snapshot = npt.NDArray[Any]
"""An array of `store.images.shards.SNAPSHOT_DTYPE`."""


def choose_size(snapshot: Snapshot, image_size: int, decode_size: int | None) -> int:
    """Return S: `decode_size`, if it is set; otherwise 2 * image_size, or the images' own side if that is smaller.

    Images have a side of their own only if all are squares of one size. Twice the size of a view keeps crops of a
    quarter of the area sharp.
    """
    if decode_size is not None:
        return decode_size
    widths, heights = snapshot["width"], snapshot["height"]
    side = int(widths[0]) if len(snapshot) else 0
    common = side and side <= 2 * image_size and bool(np.all(widths == side) and np.all(heights == side))
    return side if common else 2 * image_size
