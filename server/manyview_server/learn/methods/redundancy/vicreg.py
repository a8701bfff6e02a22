"""VICReg: views attract, each axis of the projection keeps its variance, and no two axes vary together.

Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning", arXiv 2105.04906.
Shapes: V views (2), B batch, D feature, P projection.
"""

# ruff: noqa: RUF009 - the fields' defaults are frozen
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from manyview_server.configuration import changed, setting
from manyview_server.learn import losses
from manyview_server.learn.encoder import build_encoder
from manyview_server.learn.methods import fields
from manyview_server.learn.methods.method import Method, StepOutput, Views
from manyview_server.learn.modules import heads
from manyview_server.learn.optimizers import OptimizerSettings
from manyview_server.learn.schedules import Moment
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views.recipe import ViewSettings


@dataclass(frozen=True, kw_only=True)
class VICRegSettings(TrainSettings):
    """VICReg (arXiv 2105.04906): views agree, every axis of a wide projection varies, and no two vary together."""

    method: Literal["vicreg"] = setting("vicreg", "Self-supervised method.")
    projection_hidden_dim: int | None = fields.projection_hidden_dim(2048)
    projection_layers: int = fields.projection_layers(2)
    projection_dim: int = fields.projection_dim(2048)
    invariance_weight: float = setting(25.0, "Weight of the distance between views, lambda.", minimum=0, maximum=10_000)
    variance_weight: float = setting(
        25.0, "Weight of how far each axis' standard deviation is below 1, mu.", minimum=0, maximum=10_000
    )
    covariance_weight: float = setting(
        1.0, "Weight of the covariances between different axes, nu.", minimum=0, maximum=10_000
    )
    views: ViewSettings = fields.views("vicreg")
    # Photographs at 64 px, resnet9 x 0.25, steps of 32: the loss is not finite after 20 steps without clipping.
    optimizer: OptimizerSettings = changed(TrainSettings, "optimizer", OptimizerSettings(clip_gradient_norm=2.0))


class VICReg(Method):
    """Algorithm 1 of the paper.

    Differs from the paper: as in the authors' code, the variance term is the mean and not the sum of both views, and
    the distance of the views is a mean over the axes as well. Differs from the paper: the network's batch norms see
    both views at once. Variance and covariance are computed for each view separately.
    """

    def __init__(self, settings: VICRegSettings) -> None:
        super().__init__()
        self.weights = settings.invariance_weight, settings.variance_weight, settings.covariance_weight
        self.encoder = build_encoder(settings)
        self.projection_dim = settings.projection_dim
        self.head = heads.expander_head(
            self.encoder.feature_dim,
            settings.projection_hidden_dim,
            self.projection_dim,
            num_layers=settings.projection_layers,
        )
        self.chosen = {"projection_hidden_dim": self.head.hidden_dim}

    def forward_loss(self, views: Views, image_ids: Tensor, moment: Moment) -> StepOutput:
        (pair,) = views  # (2, B, 3, o, o)
        h = self.encoder(pair.flatten(0, 1))  # (2B, D)
        z = self.head(h)  # (2B, P)
        z0, z1 = z.chunk(2)
        loss = losses.vicreg(z0, z1, *self.weights)
        return StepOutput(loss=loss, representation=h.detach(), projection=z.detach())
