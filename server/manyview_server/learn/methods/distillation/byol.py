"""BYOL: a student predicts a slowly moving teacher's projection of the other view. Nothing repels.

Grill et al., "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning", arXiv 2006.07733.
Shapes: V views (2), B batch, D feature, P projection.
"""

# ruff: noqa: RUF009 - the fields' defaults are frozen
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from manyview_server.configuration import setting
from manyview_server.learn.encoder import build_encoder
from manyview_server.learn.losses import negative_cosine
from manyview_server.learn.methods import fields
from manyview_server.learn.methods.method import Carry, Method, StepOutput, Views
from manyview_server.learn.modules import heads
from manyview_server.learn.modules.ema import make_teacher, update_teacher
from manyview_server.learn.schedules import Moment, cosine_at
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views.recipe import ViewSettings


@dataclass(frozen=True, kw_only=True)
class BYOLSettings(TrainSettings):
    """BYOL (arXiv 2006.07733): a student predicts the projections of a slowly moving copy, without negatives."""

    method: Literal["byol"] = setting("byol", "Self-supervised method.")
    projection_hidden_dim: int | None = fields.projection_hidden_dim(1024)
    projection_dim: int = fields.projection_dim(256)
    prediction_hidden_dim: int = fields.prediction_hidden_dim(1024)
    ema_momentum: float = fields.ema_momentum(0.99)
    ema_momentum_end: float | None = fields.ema_momentum_end(1.0)
    views: ViewSettings = fields.views("byol")


class BYOL(Method):
    """Equations 1 and 2 of the paper, both ways.

    The prediction head and the teacher together prevent collapse: without either, all images get the same projection.

    Differs from the paper: the batch norms see both views at once.
    """

    def __init__(self, settings: BYOLSettings) -> None:
        super().__init__()
        self.momentum = settings.ema_momentum
        self.momentum_end = settings.ema_momentum_end
        self.encoder = build_encoder(settings)
        self.projection_dim = settings.projection_dim
        self.head = heads.byol_head(self.encoder.feature_dim, settings.projection_hidden_dim, self.projection_dim)
        self.chosen = {"projection_hidden_dim": self.head.hidden_dim}
        self.predictor = heads.byol_head(self.projection_dim, settings.prediction_hidden_dim, self.projection_dim)
        self.teacher = make_teacher(nn.ModuleDict({"encoder": self.encoder, "head": self.head}))

    def forward_loss(self, views: Views, image_ids: Tensor, moment: Moment) -> StepOutput:
        (pair,) = views  # (2, B, 3, o, o)
        images = pair.flatten(0, 1)
        h = self.encoder(images)  # (2B, D)
        z = self.head(h)  # (2B, P)
        q0, q1 = self.predictor(z).chunk(2)
        target0, target1 = self._targets(images).chunk(2)
        loss = distance(q0, target1) + distance(q1, target0)
        # Projections are reported: the predictions of the first hundreds of steps are all alike without any collapse.
        return StepOutput(loss=loss, representation=h.detach(), projection=z.detach())

    def after_step(self, moment: Moment, accept: Tensor, carry: Carry) -> None:
        momentum = cosine_at(moment, self.momentum, self.momentum_end)
        update_teacher(self.teacher["encoder"], self.encoder, momentum, accept)
        update_teacher(self.teacher["head"], self.head, momentum, accept)

    @torch.no_grad()
    def _targets(self, images: Tensor) -> Tensor:
        """Return the teacher's projections (B, P). Its batch norms use the statistics of this batch."""
        projections: Tensor = self.teacher["head"](self.teacher["encoder"](images))
        return projections


def distance(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean over the batch of the squared distance of two unit vectors (equation 2), from 0 to 4."""
    return 2 + 2 * negative_cosine(prediction, target)
