"""Shared parts of the methods that hide patches of an image and let a network predict them.

These methods see one view. Their loss compares pixels, so there are no projections, and a learned embedding after the
backbone would not be trained.

Shapes: B images, N patches of a view.
"""

# ruff: noqa: RUF009 - the fields' defaults are frozen
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from manyview_server.configuration import changed, setting
from manyview_server.configuration.networks.patch_size import choose_patch_size
from manyview_server.learn import backbones
from manyview_server.learn.backbones import VisionTransformer
from manyview_server.learn.encoder import Encoder
from manyview_server.learn.optimizers import OptimizerSettings
from manyview_server.learn.settings import TrainSettings

BACKBONES = tuple(name for name in backbones.BACKBONES if name.startswith("vit_"))
"""Backbones whose patches can be hidden."""


@dataclass(frozen=True, kw_only=True)
class MaskedImageSettings(TrainSettings):
    """Settings of methods that hide patches: one view, a vision transformer, and the optimizer of these papers."""

    min_views: ClassVar[int] = 1
    max_views: ClassVar[int] = 1
    hides_patches: ClassVar[bool] = True

    backbone: str = changed(
        TrainSettings,
        "backbone",
        "vit_tiny",
        description="Vision transformer some of whose patches are hidden; its class token is the embedding.",
        choices=BACKBONES,
        pattern=None,
    )
    optimizer: OptimizerSettings = changed(
        TrainSettings, "optimizer", OptimizerSettings(name="adamw", weight_decay=0.05, betas=(0.9, 0.95))
    )

    @property
    def patch_px(self) -> int:
        """The side of a patch in pixels."""
        return self.patch_size or choose_patch_size(self.image_size)

    def hidden_patches(self, image_ids: Tensor, size: int, *, epoch: int) -> Tensor | None:
        """Return a mask (B, N) of bools, true for the patches that training hides in views of `size` pixels, or None if
        the method chooses them otherwise."""
        return None


def mask_ratio(default: float) -> Any:
    """The setting for the share of patches that are hidden."""
    return setting(default, "Share of the patches that are hidden.", exclusive_minimum=0, exclusive_maximum=1)


def transformer(encoder: Encoder) -> VisionTransformer:
    """Return the backbone as a vision transformer. `MaskedImageSettings` allow no other."""
    assert isinstance(encoder.backbone, VisionTransformer), type(encoder.backbone)
    return encoder.backbone
