"""Barlow Twins: the cross-correlation of two views' projections is pushed towards the identity.

Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", arXiv 2103.03230.
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
class BarlowTwinsSettings(TrainSettings):
    """Barlow Twins (arXiv 2103.03230): views agree in each axis of a wide projection, and the axes do not repeat."""

    method: Literal["barlow_twins"] = setting("barlow_twins", "Self-supervised method.")
    projection_hidden_dim: int | None = fields.projection_hidden_dim(2048)
    projection_layers: int = fields.projection_layers(3)
    projection_dim: int = fields.projection_dim(2048)
    off_diagonal_weight: float = setting(
        5e-3, "Weight of the correlations between different axes, lambda.", minimum=0, maximum=1
    )
    views: ViewSettings = fields.views("byol")  # as in the paper
    # Without clipping, the first gradients have norms of several thousand, and the first steps ruin the network.
    # CIFAR-10 at 16 px, resnet9 x 0.25, steps of 64, kNN: 32.4 % after 300 steps with clipping, 23.2 % after 400
    # without, 25.8 % untrained.
    optimizer: OptimizerSettings = changed(TrainSettings, "optimizer", OptimizerSettings(clip_gradient_norm=2.0))


class BarlowTwins(Method):
    """Algorithm 1 of the paper.

    Differs from the paper: gradients are clipped. The paper's optimizer scales the update of each layer instead.
    Differs from the paper: the network's batch norms see both views at once. The loss standardises each view
    separately.
    """

    def __init__(self, settings: BarlowTwinsSettings) -> None:
        super().__init__()
        self.off_diagonal_weight = settings.off_diagonal_weight
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
        loss = losses.barlow_twins(z0, z1, self.off_diagonal_weight)
        return StepOutput(loss=loss, representation=h.detach(), projection=z.detach())
