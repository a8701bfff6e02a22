"""The views of a few images one by one, for people to look at, with a description of the changes to each.

Shapes: B images, V views, S pixels on a side of a cached image, o pixels on a side of a view.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from manyview_server.learn.views import draw_all, make_views
from manyview_server.learn.views.draw import BRIGHTNESS, CONTRAST, HUE, SATURATION, ViewParameters
from manyview_server.learn.views.recipe import NormalizeSettings, ViewSettings

CHANGES = {BRIGHTNESS: "brightness", CONTRAST: "contrast", SATURATION: "saturation", HUE: "hue"}


@dataclass(frozen=True, kw_only=True)
class View:
    """One view of one image."""

    pipeline: int
    """Index of the pipeline in the recipe."""
    pixels: Tensor
    """(3, o, o), normalized, as a network gets them."""
    parameters: dict[str, Any]
    """The changes that made the view: see `describe`."""


def replay(
    images: Tensor, sizes: Tensor, image_ids: Tensor, settings: ViewSettings, *, image_size: int, seed: int, epoch: int
) -> list[list[View]]:
    """Return the views of each image, in the order of the recipe. The arguments are those of `make_views`.

    Raises:
        ValueError: the same as `make_views`.
    """
    by_size = make_views(images, sizes, image_ids, settings, image_size=image_size, seed=seed, epoch=epoch)
    of_size = {views.shape[-1]: views for views in by_size}  # (V', B, 3, o, o)
    drawn = draw_all(settings, sizes, image_ids, cache_size=images.shape[-1], seed=seed, epoch=epoch)
    found: list[list[View]] = [[] for _ in range(len(images))]
    num_before: Counter[int] = Counter()
    for index, (pipeline, parameters) in enumerate(zip(settings.pipelines, drawn, strict=True)):
        size = pipeline.size(image_size)
        for view in range(pipeline.count):
            for row, views in enumerate(found):
                pixels = of_size[size][num_before[size] + view, row]
                views.append(
                    View(pipeline=index, pixels=pixels, parameters=describe(parameters, view * len(found) + row))
                )
        num_before[size] += pipeline.count
    return found


def as_bytes(view: Tensor, normalize: NormalizeSettings) -> Tensor:
    """Undo the normalization of a view (3, o, o), and convert it to uint8."""
    mean, std = (torch.tensor(values, device=view.device)[:, None, None] for values in (normalize.mean, normalize.std))
    return ((view.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def describe(parameters: ViewParameters, row: int) -> dict[str, Any]:
    """Describe the changes that make view `row`, as JSON values: the steps by the recipe's names, in their order.

    Steps that do not apply are missing. Lengths are in pixels: of the cached image for a crop, of the view for the
    blur.
    """
    p = parameters
    top, left, height, width = p.crop[row].tolist()
    steps: dict[str, Any] = {"crop": {"top": top, "left": left, "height": height, "width": width}}
    if p.flip[row]:
        steps["horizontal_flip"] = True
    if p.flip_vertical[row]:
        steps["vertical_flip"] = True
    if p.quarter_turns[row]:
        steps["quarter_turn"] = {"degrees": 90 * int(p.quarter_turns[row])}
    if p.angle[row]:
        steps["rotation"] = {"degrees": float(p.angle[row])}
    if p.jitter[row]:
        factors = {name: float(p.factors[row, column]) for column, name in CHANGES.items()}
        steps["color_jitter"] = {"order": [CHANGES[column] for column in p.order[row].tolist()], **factors}
    if p.grayscale[row]:
        steps["grayscale"] = True
    steps |= _blur_and_solarize(p, row)
    custom = {name: {"numbers": draws.numbers[row].tolist()} for name, draws in p.custom.items() if draws.applies[row]}
    return {**steps, "custom": custom} if custom else steps


def _blur_and_solarize(p: ViewParameters, row: int) -> dict[str, Any]:
    blur = {"blur": {"sigma": float(p.sigma[row])}} if p.sigma[row] else {}
    is_solarized = bool(p.solarize_from[row].isfinite())
    solarize = {"solarize": {"threshold": 255 * float(p.solarize_from[row])}} if is_solarized else {}
    return solarize | blur if p.solarize_before_blur[row] else blur | solarize
