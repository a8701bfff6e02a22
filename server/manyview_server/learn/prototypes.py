"""Prototypes: K learned directions, to which the projections of views are compared.

Shapes: N rows, P projection, K prototypes, ... any.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manyview_server.learn.losses.rows import unit


class WeightNormalised(nn.Linear):
    """Projections (N, P) to their cosines (N, K) with the prototypes: DINO's last layer.

    A linear layer without bias on unit vectors, whose rows are divided by their lengths (weight normalisation, arXiv
    1602.07868, equation 2, with g = 1): gradients go through that division, so an update turns a prototype. In float32
    even under autocast, since what follows divides by temperatures of a few hundredths.
    """

    def __init__(self, projection_dim: int, num_prototypes: int) -> None:
        super().__init__(projection_dim, num_prototypes, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            return F.linear(unit(z), unit(self.weight))


@torch.no_grad()
def usage(logits: Tensor) -> dict[str, Tensor]:
    """How sure the softmax of `logits` (..., K) is of one prototype, and how many serve: 0-d each, for the log.

    `prototype_entropy` is the mean over the rows, in nats: 0 is a sure choice, ln K none at all. `prototypes_used` is
    e to the entropy of the mean, from 1 to K: so many prototypes equally used would have it.
    """
    p = logits.float().softmax(-1).flatten(0, -2)
    entropy = torch.special.entr(p).sum(-1).mean()
    return {"prototype_entropy": entropy, "prototypes_used": torch.special.entr(p.mean(0)).sum().exp()}
