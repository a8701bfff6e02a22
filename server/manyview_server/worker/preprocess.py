"""Turn uint8 images into the input of a network without randomness, for evaluation and embedding.

Shapes: B images, S pixels on a side as stored, o pixels on a side of the input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate


class Preprocess:
    """Resizes whole images to o x o and normalizes them. Its constants are put on the device once."""

    def __init__(
        self, image_size: int, mean: Sequence[float], std: Sequence[float], device: torch.device, dtype: torch.dtype
    ) -> None:
        self._size = (image_size, image_size)
        self._dtype = dtype
        # (x / 255 - mean) / std = x * scale + shift
        std_, mean_ = torch.tensor(std), torch.tensor(mean)
        self._scale = (1 / (255 * std_)).view(1, 3, 1, 1).to(device)
        self._shift = (-mean_ / std_).view(1, 3, 1, 1).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the input (B, 3, o, o), channels_last, for uint8 images (B, 3, S, S) on the same device."""
        x = images.to(torch.float32, memory_format=torch.channels_last)
        if x.shape[2:] != self._size:
            x = interpolate(x, self._size, mode="bilinear", antialias=True, align_corners=False)
        return torch.addcmul(self._shift, x, self._scale).to(self._dtype, memory_format=torch.channels_last)
