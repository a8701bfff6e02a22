"""Many views of each image: `draw` chooses what to do, `apply` does it, `make_views` is both, for a whole recipe.

- `recipe`, `presets`: which views are made. `draw`: the random parameters of a batch. `pixels`: apply them.
- `crop`, `rotation`, `color`, `blur`: one kind of change each. `custom`: changes that packages add.
- `replay`: the views of one image, with what was done to each.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from manyview_server.learn.views.custom import Transform, transform
from manyview_server.learn.views.draw import CustomDraws, ViewParameters, draw
from manyview_server.learn.views.pixels import apply
from manyview_server.learn.views.presets import PRESETS
from manyview_server.learn.views.recipe import PipelineSettings, ViewSettings

__all__ = [
    "PRESETS",
    "CustomDraws",
    "PipelineSettings",
    "Transform",
    "ViewParameters",
    "ViewSettings",
    "apply",
    "draw",
    "draw_all",
    "make_views",
    "require_plugins",
]


def make_views(
    images: Tensor,
    sizes: Tensor,
    image_ids: Tensor,
    settings: ViewSettings,
    *,
    image_size: int,
    seed: int,
    epoch: int,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> list[Tensor]:
    """Normalized views of cached uint8 images (B, 3, S, S), on their device: a tensor (V, B, 3, o, o) for each size o.

    The sizes are in the order of the recipe. `sizes` (B, 2) are the heights and widths that the images had before they
    were resampled to S x S, `image_ids` (B,) their 64-bit ids. Keep both on the CPU: anywhere else they are copied
    there first, which waits for the device. The same (seed, epoch, id, view) gives the same view in any batch.
    `memory_format` is that of (V * B, 3, o, o).

    Raises:
        ValueError: images that are not uint8 (B, 3, S, S), or PluginBroken, which names the plugin.
    """
    drawn = draw_all(settings, sizes.cpu(), image_ids.cpu(), cache_size=images.shape[-1], seed=seed, epoch=epoch)
    by_size: dict[int, list[Tensor]] = {}
    for (size, interpolation, custom), group in itertools.groupby(
        zip(settings.pipelines, drawn, strict=True),
        lambda pair: (pair[0].size(image_size), pair[0].crop.interpolation, pair[0].custom),
    ):
        views = apply(
            images,
            ViewParameters.joined([parameters for _, parameters in group]),
            size=size,
            interpolation=interpolation,
            custom_settings=custom,
            normalize=settings.normalize,
            dtype=dtype,
            memory_format=memory_format,
        )
        by_size.setdefault(size, []).append(views.view(-1, len(images), *views.shape[1:]))
    return [parts[0] if len(parts) == 1 else torch.cat(parts) for parts in by_size.values()]


def draw_all(
    settings: ViewSettings, sizes: Tensor, image_ids: Tensor, *, cache_size: int, seed: int, epoch: int
) -> list[ViewParameters]:
    """What is done to make the views of each pipeline: see `draw`."""
    firsts = itertools.accumulate((pipeline.count for pipeline in settings.pipelines), initial=0)
    return [
        draw(pipeline, sizes, image_ids, cache_size=cache_size, seed=seed, epoch=epoch, first_view=first)
        for pipeline, first in zip(settings.pipelines, firsts, strict=False)
    ]


def require_plugins(settings: ViewSettings) -> None:
    """Raise PluginBroken where a plugin's transform that the recipe names cannot be used."""
    for pipeline in settings.pipelines:
        for name in pipeline.custom:
            transform(name)
