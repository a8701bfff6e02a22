"""MoCo v2: a query must find its key among the keys of earlier batches. A slowly moving teacher makes the keys.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", arXiv 1911.05722; Chen et al., "Improved
Baselines with Momentum Contrastive Learning", arXiv 2003.04297.
Shapes: V views (2), B batch, D feature, P projection, K bank slots.
"""

# ruff: noqa: RUF009 - the fields' defaults are frozen
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manyview_server.configuration import setting
from manyview_server.learn.encoder import build_encoder
from manyview_server.learn.losses import info_nce
from manyview_server.learn.methods import fields
from manyview_server.learn.methods.method import Carry, Method, StepOutput, Views
from manyview_server.learn.modules import heads
from manyview_server.learn.modules.ema import make_teacher, update_teacher
from manyview_server.learn.modules.memory_bank import MemoryBank, choose_bank_size
from manyview_server.learn.schedules import Moment, cosine_at
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views.recipe import ViewSettings


@dataclass(frozen=True, kw_only=True)
class MoCoSettings(TrainSettings):
    """MoCo v2 (arXiv 2003.04297): negatives come from a memory bank of keys made by a slowly moving copy."""

    method: Literal["moco"] = setting("moco", "Self-supervised method.")
    temperature: float = fields.temperature(0.2)
    projection_hidden_dim: int | None = fields.projection_hidden_dim()
    projection_dim: int = fields.projection_dim(128)
    memory_bank_size: int | None = fields.memory_bank_size(None)
    views: ViewSettings = fields.views("moco")
    ema_momentum: float = fields.ema_momentum(0.99)
    ema_momentum_end: float | None = fields.ema_momentum_end(None)
    # CIFAR-10 at 16 px, resnet9 x 0.25, 600 steps of 64, kNN: 35.2 % with batch norms, 33.8 % without. With a faster
    # teacher (ema_momentum 0.9): 33.8 % with them, and without them a collapse to ln(K + 1).
    projection_batch_norm: bool = setting(
        True, "Whether the projection head has batch norms; the paper's has none, MoCo v3's does.", fixed=True
    )
    symmetric: bool = setting(
        True, "Whether each view serves once as query and once as key, at twice the teacher's cost."
    )

    def for_num_images(self, num_images: int) -> Self:
        return choose_bank_size(super().for_num_images(num_images), num_images)


class MoCo(Method):
    """Algorithm 1 of the first paper with the head and the views of the second.

    A loss that stays at ln(K + 1), where K keys are in the bank, means that nothing was learned.

    Differs from the paper: the head has batch norms unless ``projection_batch_norm`` is off, because without them short
    trainings learn less and fast teachers collapse.
    Differs from the paper: ``symmetric`` gives each view both roles, as MoCo v3 and lightly's benchmarks do. The batch
    norms of the student and of the teacher then see both views in one pass.
    Differs from the paper: the batch is not shuffled before the teacher's batch norms. On one device this would change
    nothing.
    """

    def __init__(self, settings: MoCoSettings) -> None:
        super().__init__()
        assert settings.memory_bank_size is not None
        self.temperature = settings.temperature
        self.symmetric = settings.symmetric
        self.momentum = settings.ema_momentum
        self.momentum_end = settings.ema_momentum_end
        self.encoder = build_encoder(settings)
        self.projection_dim = settings.projection_dim
        make_head = heads.simclr_head if settings.projection_batch_norm else heads.moco_head
        self.head = make_head(self.encoder.feature_dim, settings.projection_hidden_dim, self.projection_dim)
        self.chosen = {"projection_hidden_dim": self.head.hidden_dim}
        self.teacher = make_teacher(nn.ModuleDict({"encoder": self.encoder, "head": self.head}))
        self.bank = MemoryBank(settings.memory_bank_size, self.projection_dim)

    def forward_loss(self, views: Views, image_ids: Tensor, moment: Moment) -> StepOutput:
        (pair,) = views  # (2, B, 3, o, o)
        if self.symmetric:
            h = self.encoder(pair.flatten(0, 1))  # (2B, D)
            queries = self.head(h).chunk(2)  # of view 0, of view 1: (B, P) each
            keys = self._keys(pair.flatten(0, 1)).chunk(2)[::-1]  # of view 1, of view 0
        else:
            h = self.encoder(pair[0])  # (B, D)
            queries, keys = (self.head(h),), (self._keys(pair[1]),)

        bank = self.bank
        losses = [
            info_nce(q, k, bank.keys, bank.filled, self.temperature, image_ids=image_ids, bank_image_ids=bank.image_ids)
            for q, k in zip(queries, keys, strict=True)
        ]
        return StepOutput(
            loss=torch.stack(losses).mean(),
            representation=h.detach(),
            projection=torch.cat(queries).detach(),
            scalars={"bank_fill": bank.filled / bank.size, "chance_loss": bank.filled.float().log1p()},
            # Keys of view 1 alone: a bank of the same size then holds twice as many images.
            carry={"keys": keys[0], "image_ids": image_ids},
        )

    def after_step(self, moment: Moment, accept: Tensor, carry: Carry) -> None:
        momentum = cosine_at(moment, self.momentum, self.momentum_end)
        update_teacher(self.teacher["encoder"], self.encoder, momentum, accept)
        update_teacher(self.teacher["head"], self.head, momentum, accept)
        self.bank.enqueue(carry["keys"], carry["image_ids"], accept)

    @torch.no_grad()
    def _keys(self, images: Tensor) -> Tensor:
        """Return the teacher's unit keys (B, P). Its batch norms use the statistics of this batch."""
        return F.normalize(self.teacher["head"](self.teacher["encoder"](images)).float(), dim=1)
