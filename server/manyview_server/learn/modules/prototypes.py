"""Prototypes: K learned directions, to which the projections of views are compared.

Shapes: N rows, P projection, K prototypes, ... any.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manyview_server.learn.losses.normalize import unit


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


class UnitPrototypes(nn.Linear):
    """Unit projections (N, P) to their cosines (N, K) with the prototypes: a linear layer whose rows have length 1.

    Gradients do not know of the length, so `renormalise` after each update (SwAV, arXiv 2006.09882, listing A.1). In
    float32 even under autocast, as above.
    """

    def __init__(self, projection_dim: int, num_prototypes: int) -> None:
        super().__init__(projection_dim, num_prototypes, bias=False)
        self.renormalise(torch.tensor(True))

    def forward(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            return F.linear(z, self.weight)

    @torch.no_grad()
    def renormalise(self, accept: Tensor) -> None:
        """Sets the lengths to 1 where `accept` (0-d bool, on the device) holds; else all stays, bit for bit."""
        self.weight.copy_(torch.where(accept, unit(self.weight), self.weight))


@torch.no_grad()
def usage(logits: Tensor) -> dict[str, Tensor]:
    """How sure the softmax of `logits` (..., K) is of one prototype, and how many serve: 0-d each, for the log.

    `prototype_entropy` is the mean over the rows, in nats: 0 is a sure choice, ln K none at all. `prototypes_used` is
    e to the entropy of the mean, from 1 to K: so many prototypes equally used would have it.
    """
    p = logits.float().softmax(-1).flatten(0, -2)
    entropy = torch.special.entr(p).sum(-1).mean()
    return {"prototype_entropy": entropy, "prototypes_used": torch.special.entr(p.mean(0)).sum().exp()}
