"""MoCo v2: a query finds its key among the keys of earlier batches, which a slowly moving teacher made.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", arXiv 1911.05722; Chen et al., "Improved
Baselines with Momentum Contrastive Learning", arXiv 2003.04297.
Shapes: V views (2), B batch, D feature, P projection, K bank slots.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manyview_server.learn import heads
from manyview_server.learn.ema import make_teacher, update_teacher
from manyview_server.learn.losses import info_nce
from manyview_server.learn.memory_bank import MemoryBank
from manyview_server.learn.methods.method import Method, StepOutput, build_backbone
from manyview_server.learn.schedules import cosine
from manyview_server.learn.settings import MoCoSettings


class MoCo(Method):
    """Algorithm 1 of the first paper with the head and the views of the second.

    A loss that stays at ln(K + 1), K the keys in the bank, means that nothing was learned.

    Differs from the paper: the head has batch norms unless ``projection_batch_norm`` is off, since without them short
    trainings learn less and fast teachers collapse; ``symmetric`` gives each view both roles, as MoCo v3 and lightly's
    benchmarks do; the batch is not shuffled before the teacher's batch norms, which on one device would change nothing.
    """

    def __init__(self, settings: MoCoSettings, bank_size: int) -> None:
        super().__init__()
        self.temperature = settings.temperature
        self.symmetric = settings.symmetric
        self.momentum = settings.ema_momentum
        self.momentum_end = settings.ema_momentum if settings.ema_momentum_end is None else settings.ema_momentum_end
        self.backbone = build_backbone(settings)
        hidden_dim = settings.projection_hidden_dim or self.backbone.feature_dim
        make_head = heads.simclr_head if settings.projection_batch_norm else heads.moco_head
        self.head = make_head(self.backbone.feature_dim, hidden_dim, settings.projection_dim)
        self.teacher = make_teacher(nn.ModuleDict({"backbone": self.backbone, "head": self.head}))
        self.bank = MemoryBank(bank_size, settings.projection_dim)

    def forward_loss(self, views: Tensor, image_ids: Tensor) -> StepOutput:
        if self.symmetric:
            h = self.backbone(views.flatten(0, 1))  # (2B, D)
            queries = self.head(h).chunk(2)  # of view 0, of view 1: (B, P) each
            keys = self._keys(views.flatten(0, 1)).chunk(2)[::-1]  # of view 1, of view 0
        else:
            h = self.backbone(views[0])  # (B, D)
            queries, keys = (self.head(h),), (self._keys(views[1]),)

        bank = self.bank
        losses = [
            info_nce(q, k, bank.keys, bank.filled, self.temperature, image_ids=image_ids, bank_image_ids=bank.image_ids)
            for q, k in zip(queries, keys, strict=True)
        ]
        self._new_keys = keys[0], image_ids  # of view 1 alone: twice the images in a bank of the same size
        return StepOutput(
            loss=torch.stack(losses).mean(),
            representation=h.detach(),
            projection=torch.cat(queries).detach(),
            scalars={"bank_fill": bank.filled / bank.size, "chance_loss": bank.filled.float().log1p()},
        )

    def after_step(self, step: int, total_steps: int, accept: Tensor) -> None:
        momentum = cosine(step, total_steps, self.momentum, self.momentum_end)
        update_teacher(self.teacher["backbone"], self.backbone, momentum, accept)
        update_teacher(self.teacher["head"], self.head, momentum, accept)
        self.bank.enqueue(*self._new_keys, accept)

    @torch.no_grad()
    def _keys(self, images: Tensor) -> Tensor:
        """Unit keys (B, P) of the teacher, whose batch norms take the statistics of this batch."""
        return F.normalize(self.teacher["head"](self.teacher["backbone"](images)).float(), dim=1)
