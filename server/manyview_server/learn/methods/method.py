"""What a trainer asks of a self-supervised method.

Shapes: V views, B batch, D feature, P projection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from manyview_server.learn import backbones
from manyview_server.learn.backbones import Backbone
from manyview_server.learn.settings import TrainSettings

Feature = Literal["backbone", "projection"]


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """What one forward pass gives. All of it stays on the device."""

    loss: Tensor
    """0-d, with its graph."""
    representation: Tensor
    """(V'B, D) backbone features of the views that the student saw, detached, for watching collapse."""
    projection: Tensor | None = None
    """(V'B, P) what the loss compares with its targets (a projection, or the prediction made of it), detached: it may
    collapse long before the features do. None where the loss is no comparison of vectors."""
    scalars: dict[str, Tensor] = field(default_factory=dict)
    """0-d tensors worth logging, by name. `chance_loss`: the loss of a network that tells nothing apart."""


class Method(nn.Module, ABC):
    """A network in training: a backbone, a head, a loss, and what else the method needs, all in its state_dict.

    A step is ``forward_loss``, backward, the optimizer, ``after_step``; `learn.step.train_step` does all four.
    """

    num_views: int = 2
    backbone: Backbone
    head: nn.Module

    @abstractmethod
    def forward_loss(self, views: Tensor, image_ids: Tensor) -> StepOutput:
        """The loss of a batch.

        Args:
            views: (V, B, 3, H, W), normalised.
            image_ids: (B,) int64, not negative.
        """

    def after_step(self, step: int, total_steps: int, accept: Tensor) -> None:
        """What follows the optimizer's update: the teacher moves, the bank takes this batch's keys.

        Args:
            step: of `total_steps`, from 0.
            accept: 0-d bool on the device; where false (the loss was not finite) nothing changes.
        """

    @torch.no_grad()
    def embed(self, images: Tensor, feature: Feature = "backbone") -> Tensor:
        """Features of normalised images (B, 3, H, W), in evaluation mode: (B, D), or (B, P) for ``"projection"``."""
        was_training = self.training
        self.eval()
        try:
            features = self.backbone(images)
            return self.head(features) if feature == "projection" else features  # type: ignore[no-any-return]
        finally:
            self.train(was_training)


def build_backbone(settings: TrainSettings) -> Backbone:
    """The backbone that `settings` describe; what they leave open is chosen by the image size."""
    return backbones.build(
        settings.backbone,
        image_size=settings.image_size,
        width=settings.backbone_width,
        stem=settings.stem,
        stem_relu=settings.stem_relu,
        patch_size=settings.patch_size,
    )
