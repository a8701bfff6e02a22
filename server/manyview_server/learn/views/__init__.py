"""Many views of each image: `draw` chooses what to do, `apply` does it, `make_views` is both."""

from __future__ import annotations

import torch
from torch import Tensor

from manyview_server.learn.views.draw import ViewParameters, draw
from manyview_server.learn.views.pixels import apply
from manyview_server.learn.views.recipe import ViewSettings

__all__ = ["ViewParameters", "ViewSettings", "apply", "draw", "make_views"]


def make_views(
    images: Tensor,
    sizes: Tensor,
    image_ids: Tensor,
    settings: ViewSettings,
    *,
    size: int,
    seed: int,
    epoch: int,
    num_views: int = 2,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Normalized views (V, B, 3, o, o), o = `size`, of cached uint8 images (B, 3, S, S), on the device of `images`.

    `sizes` (B, 2) are the heights and widths that the images had before they were resampled to S x S, `image_ids` (B,)
    their 64-bit ids. Keep both on the CPU: anywhere else they are copied there first, which waits for the device.
    The same (seed, epoch, id, view) gives the same view in any batch. `memory_format` is that of (V * B, 3, o, o).

    Raises:
        ValueError: images that are not uint8 (B, 3, S, S).
    """
    parameters = draw(
        settings,
        sizes.cpu(),
        image_ids.cpu(),
        cache_size=images.shape[-1],
        seed=seed,
        epoch=epoch,
        num_views=num_views,
    )
    views = apply(images, parameters, size=size, normalize=settings.normalize, dtype=dtype, memory_format=memory_format)
    return views.view(num_views, len(images), *views.shape[1:])
