"""Changes of color with an amount for each view, on color planes (3, N, H, W), float32 in [0, 1].

Shapes: N views, H and W pixels.

Brightness, contrast and saturation each mix a view with something paler: black, the mean of its luma, or its luma. One
pass can do any of the three, so views with different orders of changes are processed together. Values are clamped after
each change, as in Pillow and torchvision. Without the clamp the result is another augmentation (30 dB off at full
strength).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from manyview_server.learn.views.draw import CONTRAST, HUE, SATURATION

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

    This is exact HSV (Smith, SIGGRAPH 1978) without its six cases: with value v, chroma c and hue h in sixths of a
    turn, red is v - c + c * clamp(|h - 3| - 1, 0, 1), green v - c * clamp(|h - 2| - 1, 0, 1), and blue the same around
    4.
    """
    red, green, blue = planes
    value = torch.maximum(red, green).clamp_min_(0)
    torch.maximum(value, blue, out=value)
    lowest = torch.minimum(red, green)
    torch.minimum(lowest, blue, out=lowest)
    chroma = value - lowest

    # lerp_ with weights of 0 or 1 chooses: torch.where is not vectorized on CPUs (five times slower).
    hue = torch.sub(red, green).add_(chroma, alpha=4)
    hue = torch.sub(blue, red).add_(chroma, alpha=2).lerp_(hue, torch.sub(value, green).sign_())
    hue = torch.sub(green, blue).lerp_(hue, torch.sub(value, red).sign_())
    sixfold = (chroma * 6).clamp_min_(1e-12)
    hue.div_(sixfold).add_(turns + 1).frac_()  # in turns; one is added to stay above zero

    below, above = lowest.sub_(chroma), value.add_(chroma)
    for plane, base, position, sign in ((red, below, 3, 1), (green, above, 2, -1), (blue, above, 4, -1)):
        bump = (hue - position / 6).abs_().clamp_(1 / 6, 2 / 6)
        torch.addcmul(base, sixfold, bump, value=sign, out=plane)


def solarize(planes: Tensor, threshold: Tensor) -> Tensor:
    """Invert values from `threshold` (N, 1, 1) on."""
    return torch.where(planes < threshold, planes, 1 - planes)
