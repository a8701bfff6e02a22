"""Rotation prediction: a network that recognizes by how much an image was turned knows what is in it.

Gidaris et al., "Unsupervised Representation Learning by Predicting Image Rotations", arXiv 1803.07728.
Shapes: V views, B batch, o pixels on a side, D feature.
"""

# ruff: noqa: RUF009 - the fields' defaults are frozen
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manyview_server.configuration import changed, setting
from manyview_server.learn.encoder import build_encoder
from manyview_server.learn.methods import Method, MethodEntry, Moment, StepOutput, Views
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views.presets import PRESETS
from manyview_server.learn.views.recipe import ViewSettings

QUARTERS = 4


@dataclass(frozen=True, kw_only=True)
class RotationSettings(TrainSettings):
    """Rotation prediction (arXiv 1803.07728): each view is turned by 0, 90, 180 and 270 degrees."""

    min_views: ClassVar[int] = 1
    method: Literal["rotation_prediction"] = setting("rotation_prediction", "Self-supervised method.")
    label_smoothing: float = setting(0.0, "Share of the target that is spread over all turns.", minimum=0, maximum=0.9)
    views: ViewSettings = changed(TrainSettings, "views", PRESETS["mae"])  # a crop and a mirror


class RotationPrediction(Method):
    """The cross-entropy of four classes, equation 3 of the paper, averaged over all turns of all views."""

    def __init__(self, settings: RotationSettings) -> None:
        super().__init__()
        self.label_smoothing = settings.label_smoothing
        self.encoder = build_encoder(settings)
        self.classifier = nn.Linear(self.encoder.feature_dim, QUARTERS)

    def forward_loss(self, views: Views, image_ids: Tensor, moment: Moment) -> StepOutput:
        images = torch.cat([view.flatten(0, 1) for view in views])  # (VB, 3, o, o)
        turned = torch.cat([images.rot90(quarter, (2, 3)) for quarter in range(QUARTERS)])
        target = torch.arange(QUARTERS, device=images.device).repeat_interleave(len(images))
        h = self.encoder(turned)  # (4VB, D)
        loss = F.cross_entropy(self.classifier(h).float(), target, label_smoothing=self.label_smoothing)
        chance = torch.full_like(loss.detach(), math.log(QUARTERS))
        return StepOutput(loss=loss, representation=h[: len(images)].detach(), scalars={"chance_loss": chance})


PAPER = "https://arxiv.org/abs/1803.07728"
METHOD = MethodEntry(title="RotNet", paper=PAPER, settings=RotationSettings, build=RotationPrediction)
