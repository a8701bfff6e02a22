"""NNCLR: a view is replaced by its nearest neighbor among earlier images, and the other view must find that neighbor.

Dwibedi et al., "With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of Visual Representations",
arXiv 2104.14548.
Shapes: V views (2), B batch, D feature, P projection, K slots of the support set.
"""

# ruff: noqa: RUF009 - the fields' defaults are frozen
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from torch import Tensor
from torch.nn import functional as F

from manyview_server.configuration import setting
from manyview_server.learn.encoder import build_encoder
from manyview_server.learn.losses import nearest_keys, nnclr
from manyview_server.learn.methods import fields
from manyview_server.learn.methods.method import Carry, Method, StepOutput, Views
from manyview_server.learn.modules import heads
from manyview_server.learn.modules.memory_bank import MemoryBank, choose_bank_size
from manyview_server.learn.schedules import Moment
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views.recipe import ViewSettings


@dataclass(frozen=True, kw_only=True)
class NNCLRSettings(TrainSettings):
    """NNCLR (arXiv 2104.14548): positives are other images, the nearest among those of earlier batches."""

    method: Literal["nnclr"] = setting("nnclr", "Self-supervised method.")
    temperature: float = fields.temperature(0.1)
    projection_hidden_dim: int | None = fields.projection_hidden_dim()
    projection_layers: int = fields.projection_layers(3)
    projection_dim: int = fields.projection_dim(128)
    prediction_hidden_dim: int = fields.prediction_hidden_dim(512)
    memory_bank_size: int | None = fields.memory_bank_size(None)
    views: ViewSettings = fields.views("simclr")

    def for_num_images(self, num_images: int) -> Self:
        return choose_bank_size(super().for_num_images(num_images), num_images)


class NNCLR(Method):
    """Equations 2 and 3 of the paper, both ways; the support set is a memory bank.

    Differs from the paper: earlier keys of the same image are skipped. A view is its own neighbor until the bank holds
    keys of other images.
    """

    def __init__(self, settings: NNCLRSettings) -> None:
        super().__init__()
        assert settings.memory_bank_size is not None
        self.temperature = settings.temperature
        self.encoder = build_encoder(settings)
        self.projection_dim = settings.projection_dim
        self.head = heads.nnclr_head(
            self.encoder.feature_dim,
            settings.projection_hidden_dim,
            self.projection_dim,
            num_layers=settings.projection_layers,
        )
        self.chosen = {"projection_hidden_dim": self.head.hidden_dim}
        self.predictor = heads.prediction_head(self.projection_dim, settings.prediction_hidden_dim)
        self.bank = MemoryBank(settings.memory_bank_size, self.projection_dim)

    def forward_loss(self, views: Views, image_ids: Tensor, moment: Moment) -> StepOutput:
        (pair,) = views  # (2, B, 3, o, o)
        h = self.encoder(pair.flatten(0, 1))  # (2B, D); one pass, so that the batch norms see both views
        z = self.head(h)  # (2B, P)
        p0, p1 = self.predictor(z).chunk(2)  # (B, P) each
        keys = z.detach()
        bank = self.bank
        n0, n1 = (
            nearest_keys(each, bank.keys, bank.filled, image_ids=image_ids, bank_image_ids=bank.image_ids).keys
            for each in keys.chunk(2)
        )
        loss = (nnclr(n0, p1, self.temperature) + nnclr(n1, p0, self.temperature)) / 2
        new_keys = F.normalize(keys[: len(image_ids)].float(), dim=1)  # (B, P), only of view 0
        return StepOutput(
            loss=loss,
            representation=h.detach(),
            projection=keys,
            scalars={"bank_fill": bank.filled / bank.size},
            carry={"keys": new_keys, "image_ids": image_ids},
        )

    def after_step(self, moment: Moment, accept: Tensor, carry: Carry) -> None:
        self.bank.enqueue(carry["keys"], carry["image_ids"], accept)
