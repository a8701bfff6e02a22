"""The encoder is the part of a trained method that is kept: the backbone and, if there is one, the learned embedding.

Shapes: B batch, D feature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from manyview_server.learn import backbones
from manyview_server.learn.backbones import Backbone
from manyview_server.learn.backbones.backbone import measured_feature_dim

if TYPE_CHECKING:
    from manyview_server.learn.settings import TrainSettings


class Encoder(nn.Module):
    """Maps images (B, 3, H, W) to features (B, D).

    With an `embedding_dim`, the features are a learned linear map of the backbone's features. It is trained with
    everything else, so it keeps what the loss needs. PCA after the training cannot know that.
    """

    def __init__(self, backbone: Backbone, embedding_dim: int | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.reduction = None if embedding_dim is None else nn.Linear(backbone.feature_dim, embedding_dim)
        self.feature_dim = embedding_dim or backbone.feature_dim

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone(images)
        return features if self.reduction is None else self.reduction(features)


def build_encoder(settings: TrainSettings) -> Encoder:
    """Build the encoder that `settings` describe. Settings that are left open are chosen by the image size.

    Raises:
        ValueError: the backbone does not exist, or it does not take views of one of the sizes in `settings`.
    """
    backbone = backbones.build(
        settings.backbone,
        image_size=settings.image_size,
        width=settings.backbone_width,
        stem=settings.stem,
        stem_relu=settings.stem_relu,
        patch_size=settings.patch_size,
    )
    for size in sorted({pipeline.size(settings.image_size) for pipeline in settings.views.pipelines}):
        _check_takes(backbone, size, settings)
    return Encoder(backbone, settings.embedding_dim)


def _check_takes(backbone: Backbone, size: int, settings: TrainSettings) -> None:
    """Raise ValueError if the backbone, which was built for views of `image_size`, does not take smaller views."""
    if size == settings.image_size:
        return
    try:
        measured_feature_dim(backbone, size)
    except ValueError as error:
        raise ValueError(
            f"views.pipelines: backbone {settings.backbone!r} for an image_size of {settings.image_size} pixels takes "
            f"no views of {size}: {error}"
        ) from error
