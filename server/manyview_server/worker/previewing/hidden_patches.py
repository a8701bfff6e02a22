"""The patches of a view that training hides from the network, as values for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from manyview_server.learn.methods.reconstruction.masked import MaskedImageSettings
from manyview_server.learn.views.replay import View


def describe(settings: MaskedImageSettings, image_ids: Tensor, views: Sequence[Sequence[View]], *, epoch: int) -> None:
    """Add the hidden patches to the parameters of each view: the side of a patch in pixels, and the numbers of the
    patches, row by row from 0."""
    for size in {view.pixels.shape[-1] for of_image in views for view in of_image}:
        hidden = settings.hidden_patches(image_ids, size, epoch=epoch)  # (B, N)
        if hidden is None:
            return
        for row, of_image in zip(hidden, views, strict=True):
            numbers = row.nonzero().flatten().tolist()
            for view in of_image:
                if view.pixels.shape[-1] == size:
                    view.parameters["hidden_patches"] = {"patch_size": settings.patch_px, "patches": numbers}
