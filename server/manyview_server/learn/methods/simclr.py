"""SimCLR: two views of an image attract, all other images of the batch repel.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", arXiv 2002.05709.
Shapes: V views (2), B batch, D feature, P projection, K bank slots.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from manyview_server.learn import heads
from manyview_server.learn.losses import info_nce, nt_xent
from manyview_server.learn.memory_bank import MemoryBank
from manyview_server.learn.methods.method import Method, StepOutput, build_backbone
from manyview_server.learn.settings import SimCLRSettings


class SimCLR(Method):
    """Algorithm 1 of the paper.

    Differs from the paper: with ``memory_bank_size`` above 0 the negatives are the keys of earlier batches and not the
    images of this one. Both views take both roles then. Keys of a network that changes at every step age quickly: on
    1,437 scans of handwriting this learned far less than either the batch's own negatives or MoCo's teacher.
    """

    def __init__(self, settings: SimCLRSettings, bank_size: int) -> None:
        super().__init__()
        self.temperature = settings.temperature
        self.backbone = build_backbone(settings)
        hidden_dim = settings.projection_hidden_dim or self.backbone.feature_dim
        self.head = heads.simclr_head(self.backbone.feature_dim, hidden_dim, settings.projection_dim)
        self.bank = MemoryBank(bank_size, settings.projection_dim) if bank_size else None

    def forward_loss(self, views: Tensor, image_ids: Tensor) -> StepOutput:
        h = self.backbone(views.flatten(0, 1))  # (2B, D); one pass, so that batch norm sees both views
        z = self.head(h)  # (2B, P)
        z0, z1 = z.chunk(2)
        scalars = {}
        if self.bank is None:
            loss = nt_xent(z0, z1, self.temperature)
        else:
            loss = (self._bank_loss(z0, z1, image_ids, self.bank) + self._bank_loss(z1, z0, image_ids, self.bank)) / 2
            self._new_keys = F.normalize(z1.detach().float(), dim=1), image_ids
            scalars["bank_fill"] = self.bank.filled / self.bank.size
            scalars["chance_loss"] = self.bank.filled.float().log1p()
        return StepOutput(loss=loss, representation=h.detach(), projection=z.detach(), scalars=scalars)

    def after_step(self, step: int, total_steps: int, accept: Tensor) -> None:
        if self.bank is not None:
            self.bank.enqueue(*self._new_keys, accept)

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
