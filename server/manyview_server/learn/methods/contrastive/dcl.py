"""DCL: SimCLR without the positive pair in the denominator of the loss. DCLW also weights the pairs.

Yeh et al., "Decoupled Contrastive Learning", arXiv 2110.06848.
Shapes: V views (2), B batch, D feature, P projection.
"""

# ruff: noqa: RUF009 - the fields' defaults are frozen
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from manyview_server.configuration import setting
from manyview_server.learn import losses
from manyview_server.learn.encoder import build_encoder
from manyview_server.learn.methods import fields
from manyview_server.learn.methods.method import Method, StepOutput, Views
from manyview_server.learn.modules import heads
from manyview_server.learn.schedules import Moment
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views.recipe import ViewSettings


@dataclass(frozen=True, kw_only=True)
class DCLSettings(TrainSettings):
    """DCL (arXiv 2110.06848): every other image of the batch repels, and the positive pair does not weaken that."""

    method: Literal["dcl"] = setting("dcl", "Self-supervised method.")
    temperature: float = fields.temperature(0.1)
    projection_hidden_dim: int | None = fields.projection_hidden_dim()
    projection_dim: int = fields.projection_dim(128)
    views: ViewSettings = fields.views("simclr")


@dataclass(frozen=True, kw_only=True)
class DCLWSettings(TrainSettings):
    """DCLW (arXiv 2110.06848): DCL that pulls hardest at the pairs that are far apart."""

    method: Literal["dclw"] = setting("dclw", "Self-supervised method.")
    temperature: float = fields.temperature(0.1)
    weight_sigma: float = setting(
        0.5, "Width of the weights of pairs: the larger, the more alike they are.", minimum=0.01, maximum=100
    )
    projection_hidden_dim: int | None = fields.projection_hidden_dim()
    projection_dim: int = fields.projection_dim(128)
    views: ViewSettings = fields.views("simclr")


class DCL(Method):
    """Equation 5 of the paper, or equation 6 with a `weight_sigma`.

    The loss can be negative: it falls below zero as the views come together.
    """

    def __init__(self, settings: DCLSettings | DCLWSettings) -> None:
        super().__init__()
        self.temperature = settings.temperature
        self.weight_sigma = settings.weight_sigma if isinstance(settings, DCLWSettings) else None
        self.encoder = build_encoder(settings)
        self.projection_dim = settings.projection_dim
        self.head = heads.simclr_head(self.encoder.feature_dim, settings.projection_hidden_dim, self.projection_dim)
        self.chosen = {"projection_hidden_dim": self.head.hidden_dim}

    def forward_loss(self, views: Views, image_ids: Tensor, moment: Moment) -> StepOutput:
        (pair,) = views  # (2, B, 3, o, o)
        h = self.encoder(pair.flatten(0, 1))  # (2B, D); one pass, so that the batch norms see both views
        z = self.head(h)  # (2B, P)
        z0, z1 = z.chunk(2)
        loss = losses.dcl(z0, z1, self.temperature, weight_sigma=self.weight_sigma)
        return StepOutput(loss=loss, representation=h.detach(), projection=z.detach())
