"""Projection heads, from features (B, D) to projections (B, P), and prediction heads, from projections to projections.

The loss is taken in the projections. A head is thrown away after training, because the layer before it represents
images better (SimCLR, arXiv 2002.05709, section 4.2). A linear layer before a batch norm has no bias: the norm would
subtract it again.

Every function takes `hidden_dim=None` for hidden layers as wide as the head's input.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from torch import nn


class Head(nn.Sequential):
    """The layers of a projection head or a prediction head."""

    hidden_dim: int
    """Width of the hidden layers."""


def simclr_head(feature_dim: int, hidden_dim: int | None, projection_dim: int) -> Head:
    """Two layers with batch norm on both (arXiv 2002.05709, section 2.1; the authors' code norms the output, too)."""
    return _mlp(feature_dim, hidden_dim, projection_dim, last=nn.BatchNorm1d(projection_dim))


def moco_head(feature_dim: int, hidden_dim: int | None, projection_dim: int) -> Head:
    """Two layers without batch norm (MoCo v2, arXiv 2003.04297, section 2)."""
    hidden_dim = hidden_dim or feature_dim
    layers = nn.Linear(feature_dim, hidden_dim), nn.ReLU(inplace=True), nn.Linear(hidden_dim, projection_dim)
    return _head(layers, hidden_dim)


def swav_head(feature_dim: int, hidden_dim: int | None, projection_dim: int) -> Head:
    """Two layers, batch norm on the hidden one (SwAV, arXiv 2006.09882, section 4): 2048-2048-128."""
    return _mlp(feature_dim, hidden_dim, projection_dim)


def byol_head(input_dim: int, hidden_dim: int | None, output_dim: int) -> Head:
    """Two layers, batch norm on the hidden one, no bias on the output: projection and prediction of BYOL (arXiv
    2006.07733, section 3.3, and the authors' code), 2048-4096-256 and 256-4096-256.
    """
    return _mlp(input_dim, hidden_dim, output_dim, output_bias=False)


def prediction_head(projection_dim: int, hidden_dim: int | None) -> Head:
    """Two layers from projections to projections, batch norm on the hidden one: SimSiam (arXiv 2011.10566, section 3),
    2048-512-2048, and NNCLR (arXiv 2104.14548, section 4.1), 256-4096-256.
    """
    return _mlp(projection_dim, hidden_dim, projection_dim)


def simsiam_head(feature_dim: int, hidden_dim: int | None, projection_dim: int, num_layers: int = 3) -> Head:
    """Batch norm on every layer, without weights on the output (SimSiam, arXiv 2011.10566, section 3, and the authors'
    code): 2048-2048-2048-2048.
    """
    last = nn.BatchNorm1d(projection_dim, affine=False)
    return _mlp(feature_dim, hidden_dim, projection_dim, num_layers=num_layers, last=last)


def nnclr_head(feature_dim: int, hidden_dim: int | None, projection_dim: int, num_layers: int = 3) -> Head:
    """Batch norm on every layer (NNCLR, arXiv 2104.14548, section 4.1): 2048-2048-2048-256."""
    last = nn.BatchNorm1d(projection_dim)
    return _mlp(feature_dim, hidden_dim, projection_dim, num_layers=num_layers, last=last)


def expander_head(feature_dim: int, hidden_dim: int | None, projection_dim: int, num_layers: int = 3) -> Head:
    """Batch norm on the hidden layers, an output wider than the features: Barlow Twins (arXiv 2103.03230, section 3.1)
    and VICReg (arXiv 2105.04906, section 4.2), 2048-8192-8192-8192.

    The output has no bias, because both losses subtract the mean.
    """
    return _mlp(feature_dim, hidden_dim, projection_dim, num_layers=num_layers, output_bias=False)


def dino_head(feature_dim: int, hidden_dim: int | None, projection_dim: int, *, batch_norm: bool) -> Head:
    """Three layers with GELU, up to the bottleneck (DINO, arXiv 2104.14294, section 3.1 and appendix C)."""
    width = hidden_dim or feature_dim

    def hidden(in_dim: int) -> list[nn.Module]:
        norm = [nn.BatchNorm1d(width)] if batch_norm else []
        return [nn.Linear(in_dim, width, bias=not batch_norm), *norm, nn.GELU()]

    head = _head([*hidden(feature_dim), *hidden(width), nn.Linear(width, projection_dim)], width)
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return head


def _mlp(
    input_dim: int,
    hidden_dim: int | None,
    output_dim: int,
    *,
    num_layers: int = 2,
    last: nn.Module | None = None,
    output_bias: bool = True,
) -> Head:
    """Linear layers, each but the output followed by batch norm and ReLU, the output by `last`."""
    hidden_dim = hidden_dim or input_dim
    layers: list[nn.Module] = []
    for before, width in itertools.pairwise([input_dim, *[hidden_dim] * (num_layers - 1)]):
        layers += [nn.Linear(before, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
    layers.append(nn.Linear(hidden_dim, output_dim, bias=last is None and output_bias))
    return _head([*layers, *([] if last is None else [last])], hidden_dim)


def _head(layers: Iterable[nn.Module], hidden_dim: int) -> Head:
    head = Head(*layers)
    head.hidden_dim = hidden_dim
    return head
