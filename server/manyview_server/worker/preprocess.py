"""From uint8 images to a network's input, without randomness: what evaluation and embedding see.

Shapes: B images, S pixels on a side as stored, o pixels on a side of the input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate


class Preprocess:
    """The whole image, resized to o x o and normalised. Constants are put on the device once."""

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
        """(B, 3, o, o), channels_last, of uint8 (B, 3, S, S) on the same device."""
        x = images.to(torch.float32, memory_format=torch.channels_last)
        if x.shape[2:] != self._size:
            x = interpolate(x, self._size, mode="bilinear", antialias=True, align_corners=False)
        return torch.addcmul(self._shift, x, self._scale).to(self._dtype, memory_format=torch.channels_last)
