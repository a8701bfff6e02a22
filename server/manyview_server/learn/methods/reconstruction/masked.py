"""What methods share that hide patches of an image and have a network guess them.

They see one view. Their loss compares pixels, so that there are no projections, and nothing behind the backbone learns.
"""

# ruff: noqa: RUF009 - the fields' defaults are frozen
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from manyview_server.configuration import changed, setting
from manyview_server.learn import backbones
from manyview_server.learn.backbones import VisionTransformer
from manyview_server.learn.encoder import Encoder
from manyview_server.learn.optimizers import OptimizerSettings
from manyview_server.learn.settings import TrainSettings

BACKBONES = tuple(name for name in backbones.BACKBONES if name.startswith("vit_"))
"""Those of which patches can be hidden."""


@dataclass(frozen=True, kw_only=True)
class MaskedImageSettings(TrainSettings):
    """One view, a vision transformer, and the optimizer with which these are trained."""

    min_views: ClassVar[int] = 1
    max_views: ClassVar[int] = 1
    hides_patches: ClassVar[bool] = True

    backbone: str = changed(
        TrainSettings,
        "backbone",
        "vit_tiny",
        description="Vision transformer, of whose patches some are hidden; its class token is the embedding.",
        choices=BACKBONES,
        pattern=None,
    )
    optimizer: OptimizerSettings = changed(
        TrainSettings, "optimizer", OptimizerSettings(name="adamw", weight_decay=0.05, betas=(0.9, 0.95))
    )


def mask_ratio(default: float) -> Any:
    """Of the patches of an image."""
    return setting(default, "Share of the patches that are hidden.", exclusive_minimum=0, exclusive_maximum=1)


def transformer(encoder: Encoder) -> VisionTransformer:
    """The backbone, of which patches can be hidden: `MaskedImageSettings` name no other."""
    assert isinstance(encoder.backbone, VisionTransformer), type(encoder.backbone)
    return encoder.backbone
