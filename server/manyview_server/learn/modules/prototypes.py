"""Prototypes: K learned directions with which the projections of views are compared.

Shapes: N rows, P projection, K prototypes, ... any.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manyview_server.learn.normalize import unit_rows


class WeightNormalised(nn.Linear):
    """Maps projections (N, P) to their cosines (N, K) with the prototypes: DINO's last layer.

    This is a linear layer without bias on unit vectors. Its rows are divided by their lengths (weight normalisation,
    arXiv 1602.07868, equation 2, with g = 1). Gradients pass through that division, so an update turns a prototype. The
    layer computes in float32 even under autocast, because the result is divided by temperatures of a few hundredths.
    """

    def __init__(self, projection_dim: int, num_prototypes: int) -> None:
        super().__init__(projection_dim, num_prototypes, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            return F.linear(unit_rows(z), unit_rows(self.weight))


class UnitPrototypes(nn.Linear):
    """Maps unit projections (N, P) to their cosines (N, K) with the prototypes: a linear layer whose rows have length
    1.

    Gradients ignore that constraint, so call `renormalise` after each update (SwAV, arXiv 2006.09882, listing A.1). The
    layer computes in float32 even under autocast, like `WeightNormalised`.
    """

    def __init__(self, projection_dim: int, num_prototypes: int) -> None:
        super().__init__(projection_dim, num_prototypes, bias=False)
        self.renormalise(torch.tensor(True))

    def forward(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            return F.linear(z, self.weight)

    @torch.no_grad()
    def renormalise(self, accept: Tensor) -> None:
        """Scale the rows to length 1 if `accept` (0-d bool, on the device) is true. Otherwise nothing changes, bit for
        bit."""
        self.weight.copy_(torch.where(accept, unit_rows(self.weight), self.weight))


@torch.no_grad()
def usage(logits: Tensor) -> dict[str, Tensor]:
    """Measure how the softmax of `logits` (..., K) uses the prototypes: two 0-d values for the log.

    `prototype_entropy` is the mean entropy of the rows, in nats: 0 is a certain choice, ln K a uniform one.
    `prototypes_used` is e to the entropy of the mean row, from 1 to K: the number of prototypes that, used equally,
    would have that entropy.
    """
    p = logits.float().softmax(-1).flatten(0, -2)
    entropy = torch.special.entr(p).sum(-1).mean()
    return {"prototype_entropy": entropy, "prototypes_used": torch.special.entr(p.mean(0)).sum().exp()}
