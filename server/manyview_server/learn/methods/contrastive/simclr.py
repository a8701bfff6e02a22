"""SimCLR: two views of an image attract, all other images of the batch repel.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", arXiv 2002.05709.
Shapes: V views (2), B batch, D feature, P projection, K bank slots.
"""

# ruff: noqa: RUF009 - the fields' defaults are frozen
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from torch import Tensor
from torch.nn import functional as F

from manyview_server.configuration import setting
from manyview_server.learn.encoder import build_encoder
from manyview_server.learn.losses import info_nce, nt_xent
from manyview_server.learn.methods import fields
from manyview_server.learn.methods.method import Carry, Method, StepOutput, Views
from manyview_server.learn.modules import heads
from manyview_server.learn.modules.memory_bank import MemoryBank, choose_bank_size
from manyview_server.learn.schedules import Moment
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views.recipe import ViewSettings


@dataclass(frozen=True, kw_only=True)
class SimCLRSettings(TrainSettings):
    """SimCLR (arXiv 2002.05709): every other image of the batch is a negative."""

    method: Literal["simclr"] = setting("simclr", "Self-supervised method.")
    # CIFAR-10, resnet9 x 0.5 at 32 px, 200 CPU-seconds, kNN: 38.2 % with 0.2, 34.5 % with 0.5.
    temperature: float = fields.temperature(0.2)
    projection_hidden_dim: int | None = fields.projection_hidden_dim()
    projection_dim: int = fields.projection_dim(128)
    memory_bank_size: int | None = fields.memory_bank_size(0, minimum=0)
    # CIFAR-10 at 16 px, resnet9 x 0.25, 600 steps of 64, kNN: 40.5 % with the small recipe, 35.1 % with the paper's.
    views: ViewSettings = fields.views("simclr")

    def for_num_images(self, num_images: int) -> Self:
        return choose_bank_size(super().for_num_images(num_images), num_images)


class SimCLR(Method):
    """Algorithm 1 of the paper.

    Differs from the paper: with ``memory_bank_size`` above 0 the negatives are the keys of earlier batches instead of
    the other images of this batch, and each view serves both as query and as key. Keys of a network that changes at
    every step age quickly: on 1,437 scans of handwriting this learned far less than either the batch's own negatives or
    MoCo's teacher.
    """

    def __init__(self, settings: SimCLRSettings) -> None:
        super().__init__()
        self.temperature = settings.temperature
        self.encoder = build_encoder(settings)
        self.projection_dim = settings.projection_dim
        self.head = heads.simclr_head(self.encoder.feature_dim, settings.projection_hidden_dim, self.projection_dim)
        self.chosen = {"projection_hidden_dim": self.head.hidden_dim}
        self.bank = MemoryBank(settings.memory_bank_size, self.projection_dim) if settings.memory_bank_size else None

    def forward_loss(self, views: Views, image_ids: Tensor, moment: Moment) -> StepOutput:
        (pair,) = views  # (2, B, 3, o, o)
        h = self.encoder(pair.flatten(0, 1))  # (2B, D); one pass, so that the batch norms see both views
        z = self.head(h)  # (2B, P)
        z0, z1 = z.chunk(2)
        scalars: dict[str, Tensor] = {}
        carry: dict[str, Tensor] = {}
        if self.bank is None:
            loss = nt_xent(z0, z1, self.temperature)
        else:
            loss = (self._bank_loss(z0, z1, image_ids, self.bank) + self._bank_loss(z1, z0, image_ids, self.bank)) / 2
            carry = {"keys": F.normalize(z1.detach().float(), dim=1), "image_ids": image_ids}
            scalars["bank_fill"] = self.bank.filled / self.bank.size
            scalars["chance_loss"] = self.bank.filled.float().log1p()
        return StepOutput(loss=loss, representation=h.detach(), projection=z.detach(), scalars=scalars, carry=carry)

    def after_step(self, moment: Moment, accept: Tensor, carry: Carry) -> None:
        if self.bank is not None:
            self.bank.enqueue(carry["keys"], carry["image_ids"], accept)

    def _bank_loss(self, query: Tensor, key: Tensor, image_ids: Tensor, bank: MemoryBank) -> Tensor:
        return info_nce(
            query,
            key,
            bank.keys,
            bank.filled,
            self.temperature,
            image_ids=image_ids,
            bank_image_ids=bank.image_ids,
        )
