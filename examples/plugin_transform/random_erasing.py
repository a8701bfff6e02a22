"""Random erasing (Zhong et al., arXiv 1708.04896): a rectangle of a view becomes gray.

Shapes: N views, o pixels on a side, K = 4 numbers for each view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from manyview_server.configuration import setting
from manyview_server.learn.views import Transform


@dataclass(frozen=True, kw_only=True)
class RandomErasingSettings:
    """A rectangle becomes gray (arXiv 1708.04896)."""

    probability: float = setting(0.0, "Probability that a view has such a rectangle.", minimum=0, maximum=1)
    area_min: float = setting(
        0.02,
        "Smallest share of the view that the rectangle covers.",
        minimum=0.001,
        maximum=1,
        needs=("probability",),
        at_most="area_max",
    )
    area_max: float = setting(
        0.4, "Largest share of the view that the rectangle covers.", minimum=0.001, maximum=1, needs=("probability",)
    )
    ratio_max: float = setting(
        3.3, "Largest ratio of the longer to the shorter side.", minimum=1, maximum=10, needs=("probability",)
    )
    gray: float = setting(0.5, "Gray value, from 0 (black) to 1 (white).", minimum=0, maximum=1, needs=("probability",))


def erase(planes: Tensor, numbers: Tensor, settings: RandomErasingSettings) -> Tensor:
    """Return `planes` (3, N, o, o) with a gray rectangle in each view. `numbers` (N, 4) determine its area, shape and
    place."""
    size, (area, shape, top, left) = planes.shape[-1], numbers.T  # (N,) each
    area = settings.area_min + area * (settings.area_max - settings.area_min)
    ratio = (math.log(settings.ratio_max) * (2 * shape - 1)).exp()
    height, width = (area / ratio).sqrt().clamp_max(1) * size, (area * ratio).sqrt().clamp_max(1) * size
    inside_rows = between(top * (size - height), height, size)  # (N, o)
    inside_columns = between(left * (size - width), width, size)
    inside = inside_rows[:, :, None] & inside_columns[:, None, :]  # (N, o, o)
    return torch.where(inside, settings.gray, planes)


def between(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Return the pixels whose centers lie between `start` and `start + length`, (N, o) bool."""
    centers = torch.arange(0.5, size, device=start.device)
    return (centers > start[:, None]) & (centers < (start + length)[:, None])


TRANSFORM = Transform(settings=RandomErasingSettings, change=erase, num_draws=4)
