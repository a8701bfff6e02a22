"""Changes of color with an amount for each view, on color planes (3, N, H, W), float32 in [0, 1].

Shapes: N views, H and W pixels.

Brightness, contrast and saturation each mix a view with something paler: black, the mean of its luma, or its luma.
Values are clamped after each change, as in Pillow and torchvision. Without the clamp the result is another augmentation
(30 dB off at full strength).

A device, where starting an operation costs more than the operation, processes views with different orders of changes
together (`jitter_`): one pass can do any of the three mixes. A CPU does for each order only what is needed
(`change_colors_`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from manyview_server.learn.views.draw import BRIGHTNESS, CONTRAST, HUE, SATURATION

LUMA = (0.2989, 0.587, 0.114)
"""ITU-R 601 weights of red, green and blue, as in torchvision. Pillow's differ in the fifth digit."""


@dataclass(frozen=True)
class Jitter:
    """Color jitter of N views as factors. At each view's place of the hue, only `turns` is used."""

    factor: Tensor
    """(4, N, 1, 1): factor of the view, at each place of its order."""
    with_luma: Tensor
    """(4, N, 1, 1): factor of its luma."""
    with_mean: Tensor
    """(4, N, 1, 1): factor of the mean of its luma."""
    turns: Tensor
    """(N, 1, 1): turns of the hue."""

    @classmethod
    def of(cls, factors: Tensor, order: Tensor) -> Jitter:
        """Convert `ViewParameters.factors` and `ViewParameters.order`."""
        factor = factors.gather(1, order)  # (N, 4)
        rest = 1 - factor
        mixes = torch.stack([factor, rest * (order == SATURATION), rest * (order == CONTRAST)])
        factor, with_luma, with_mean = mixes.transpose(1, 2)[..., None, None]
        return cls(factor, with_luma, with_mean, factors[:, HUE, None, None])

    def rows(self, rows: slice) -> Jitter:
        return Jitter(self.factor[:, rows], self.with_luma[:, rows], self.with_mean[:, rows], self.turns[rows])


def jitter_(planes: Tensor, jitter: Jitter, hue_at: int) -> None:
    """Apply the four changes in the order of each view. Hue must be at place `hue_at` in all of them."""
    for place in range(4):
        if place == hue_at:
            turn_hue_(planes, jitter.turns)
        else:
            mix_(planes, jitter.factor[place], jitter.with_luma[place], jitter.with_mean[place])


def change_colors_(planes: Tensor, factors: Tensor, order: Sequence[int]) -> None:
    """Apply the four changes to all views in one order. `factors` (N, 4) are those of `ViewParameters`."""
    for change in order:
        factor = factors[:, change, None, None]  # (N, 1, 1)
        if change == HUE:
            turn_hue_(planes, factor)
            continue
        if change == BRIGHTNESS:
            planes.mul_(factor)
        elif change == CONTRAST:
            mean = luma(planes.mean(3, keepdim=True).mean(2, keepdim=True))  # (N, 1, 1)
            planes.mul_(factor).add_(mean.mul_(1 - factor))
        else:
            torch.lerp(luma(planes), planes, factor, out=planes)
        planes.clamp_(0, 1)


def luma(planes: Tensor) -> Tensor:
    """Return the luma of planes (3, N, H, W): (N, H, W)."""
    return (planes[0] * LUMA[0]).add_(planes[1], alpha=LUMA[1]).add_(planes[2], alpha=LUMA[2])


def mix_(planes: Tensor, factor: Tensor, with_luma: Tensor, with_mean: Tensor) -> None:
    """Set planes to factor * planes + with_luma * luma + with_mean * mean of luma, clamped. The factors are (N, 1,
    1)."""
    paler = luma(planes)
    # Sum over each row, then over the rows: with few views, a sum over both axes would be split among threads.
    mean = paler.mean(2, keepdim=True).mean(1, keepdim=True).mul_(with_mean)
    torch.addcmul(mean, paler, with_luma, out=paler)
    torch.addcmul(paler, planes, factor, out=planes)
    planes.clamp_(0, 1)


def turn_hue_(planes: Tensor, turns: Tensor) -> None:
    """Turn the hue of each view by `turns` (N, 1, 1) of the color circle. HSV's value and saturation stay the same.

    This is exact HSV (Smith, SIGGRAPH 1978) without its six cases. With value v, chroma c and the hue h in sixths of a
    turn from green, green is v - c * clamp(|h| - 1, 0, 1), red v - c + c * clamp(|h - 1| - 1, 0, 1), and blue the same
    around -1. If m is the lowest channel, |h| is (r + b - g + v - 2 m) / c.
    """
    red, green, blue = planes
    value = torch.maximum(red, green)
    torch.maximum(value, blue, out=value)
    lowest = torch.minimum(red, green)
    torch.minimum(lowest, blue, out=lowest)
    chroma = value - lowest

    # The distance from green, in sixths of a turn times the chroma, has one formula in all of the six cases.
    hue = torch.sub(red, green).add_(blue).add_(chroma).sub_(lowest)
    hue.copysign_(torch.sub(blue, red))  # below zero on the side of red
    sixfold = (chroma * 6).clamp_min_(1e-12)
    hue.div_(sixfold).add_(turns)
    hue.sub_(hue.round())  # in turns from green, from -1/2 to 1/2

    below, above = lowest.sub_(chroma), value.add_(chroma)
    for plane, opposite in ((red, 1 / 6), (blue, -1 / 6)):
        torch.addcmul(below, sixfold, hue.sub(opposite).abs_().clamp_(1 / 6, 2 / 6), out=plane)
    torch.addcmul(above, sixfold, hue.abs_().clamp_(1 / 6, 2 / 6), value=-1, out=green)


def solarize(planes: Tensor, threshold: Tensor) -> Tensor:
    """Invert values from `threshold` (N, 1, 1) on."""
    is_below = torch.sub(threshold, planes).sign_().clamp_min_(0)
    return (1 - planes).lerp_(planes, is_below)  # torch.where is not vectorized on CPUs
