"""Arrays of pixels as samples that a PNG can hold.

Shapes: (H, W) or (H, W, 1) grey, (H, W, 2) grey and alpha, (H, W, 3) RGB, (H, W, 4) RGB and alpha; N images in a batch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SHAPES = "(H, W), (H, W, 3), or with an alpha channel (H, W, 2) or (H, W, 4)"
_KINDS = "uint8 in [0, 255], uint16 in [0, 65535], float in [0, 1], or bool"
_TOLERANCE = 0.5 / 255
"""Floats may leave [0, 1] by this much, which is what rounding errors do. It is half a level of 8 bits."""


def is_array(item: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(item, numpy.ndarray)


def split(array: NDArray[Any]) -> Sequence[NDArray[Any]]:
    """Return an array of one image or of a batch, (N, H, W, C), as a sequence of images."""
    return list(array) if array.ndim == 4 else [array]


def samples(array: NDArray[Any]) -> NDArray[Any]:
    """Return an image's samples, (H, W, C) of uint8 or uint16. Raises ValueError for other shapes and values."""
    import numpy as np

    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or 0 in array.shape:
        channels_first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = ": channels come last, transpose it" if channels_first else ""
        raise ValueError(f"an image array must be {_SHAPES}, not {array.shape}{hint}")
    if array.dtype.kind == "f":
        return _from_floats(array)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise ValueError(f"an image array must be {_KINDS}, not {array.dtype}: scale it and use astype")
    return array


def _from_floats(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Return floats in [0, 1] as the nearest of 256 levels. The server does the same to a file of floats."""
    import numpy as np

    low, high = float(array.min()), float(array.max())
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # also if one of them is not a number
        raise ValueError(
            f"an image of floats must lie in [0, 1], not in [{low:g}, {high:g}]: scale it, or use uint8 in [0, 255]"
        )
    levels: NDArray[np.uint8] = np.rint(array.astype(np.float32, copy=False).clip(0, 1) * 255).astype(np.uint8)
    return levels
