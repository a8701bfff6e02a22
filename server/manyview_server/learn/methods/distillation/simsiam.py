"""SimSiam: each view predicts the other, and no gradient reaches the predicted side. No negatives, no teacher.

Chen and He, "Exploring Simple Siamese Representation Learning", arXiv 2011.10566.
Shapes: V views (2), B batch, D feature, P projection.
"""

# ruff: noqa: RUF009 - the fields' defaults are frozen
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from manyview_server.configuration import setting
from manyview_server.learn.encoder import build_encoder
from manyview_server.learn.losses import negative_cosine
from manyview_server.learn.methods import fields
from manyview_server.learn.methods.method import Method, StepOutput, Views
from manyview_server.learn.modules import heads
from manyview_server.learn.schedules import Moment
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views.recipe import ViewSettings


@dataclass(frozen=True, kw_only=True)
class SimSiamSettings(TrainSettings):
    """SimSiam (arXiv 2011.10566): one network predicts its own projection of another view, without negatives."""

    method: Literal["simsiam"] = setting("simsiam", "Self-supervised method.")
    projection_hidden_dim: int | None = fields.projection_hidden_dim()
    projection_layers: int = fields.projection_layers(3)
    projection_dim: int = fields.projection_dim(128)
    prediction_hidden_dim: int = fields.prediction_hidden_dim(64)
    views: ViewSettings = fields.views("simsiam")


class SimSiam(Method):
    """Algorithm 1 of the paper.

    A loss that goes to -1 within a few steps means that the network has collapsed.

    Differs from the paper: the batch norms see both views at once.
    Differs from the paper: the learning rate of the prediction head falls like that of all other layers.
    """

    def __init__(self, settings: SimSiamSettings) -> None:
        super().__init__()
        self.encoder = build_encoder(settings)
        self.projection_dim = settings.projection_dim
        self.head = heads.simsiam_head(
            self.encoder.feature_dim,
            settings.projection_hidden_dim,
            self.projection_dim,
            num_layers=settings.projection_layers,
        )
        self.chosen = {"projection_hidden_dim": self.head.hidden_dim}
        self.predictor = heads.prediction_head(self.projection_dim, settings.prediction_hidden_dim)

    def forward_loss(self, views: Views, image_ids: Tensor, moment: Moment) -> StepOutput:
        (pair,) = views  # (2, B, 3, o, o)
        h = self.encoder(pair.flatten(0, 1))  # (2B, D)
        z = self.head(h)  # (2B, P)
        p = self.predictor(z)  # (2B, P)
        z0, z1 = z.detach().chunk(2)  # stop-gradient: without it all images get the same projection
        p0, p1 = p.chunk(2)
        loss = (negative_cosine(p0, z1) + negative_cosine(p1, z0)) / 2
        return StepOutput(loss=loss, representation=h.detach(), projection=p.detach())
