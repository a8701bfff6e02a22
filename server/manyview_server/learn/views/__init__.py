"""Random views of images: `draw` chooses the parameters, `apply` makes the pixels, `make_views` does both for a recipe.

It may import what `learn` may import, and its neighbors `counter_random`, `out_of_memory` and `plugins`.

- `recipe`, `presets`: the settings of views. `draw`: the random parameters of a batch.
- `pixels`: make views by them. `device_pixels`: the same on another device than the CPU.
- `crop`, `rotation`, `color`, `blur`: one kind of change each. `custom`: changes that packages add.
- `replay`: the views of a few images, with a description of each.
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
    """Make normalized views of cached uint8 images: a tensor (V, B, 3, o, o) for each size o, in the order of the
    recipe.

    The same (seed, epoch, id, view) gives the same view in any batch.

    Args:
        images: (B, 3, S, S) uint8. The views are on their device.
        sizes: (B, 2), the heights and widths of the images before they were resampled to S x S.
        image_ids: (B,), 64-bit ids. Keep `sizes` and `image_ids` on the CPU: from a device they are copied to the CPU
            first, which waits for the device.
        memory_format: the layout of (V * B, 3, o, o).

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
    """Draw the parameters of the views of each pipeline: see `draw`."""
    firsts = itertools.accumulate((pipeline.count for pipeline in settings.pipelines), initial=0)
    return [
        draw(pipeline, sizes, image_ids, cache_size=cache_size, seed=seed, epoch=epoch, first_view=first)
        for pipeline, first in zip(settings.pipelines, firsts, strict=False)
    ]


def require_plugins(settings: ViewSettings) -> None:
    """Raise PluginBroken if the recipe names a plugin's transform that cannot be used."""
    for pipeline in settings.pipelines:
        for name in pipeline.custom:
            transform(name)
