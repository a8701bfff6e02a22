"""Heads: features (B, D) to projections (B, P) in which the loss is taken, or projections to predictions of others.

A head is thrown away after training: the layer before it represents images better (SimCLR, arXiv 2002.05709,
section 4.2). A linear layer before a batch norm has no bias, which the norm would take away again.
"""

from __future__ import annotations

import itertools

from torch import nn


def simclr_head(feature_dim: int, hidden_dim: int, projection_dim: int) -> nn.Sequential:
    """Two layers with batch norm on both (arXiv 2002.05709, section 2.1; the authors' code norms the output, too)."""
    return _mlp(feature_dim, hidden_dim, projection_dim, last=nn.BatchNorm1d(projection_dim))


def moco_head(feature_dim: int, hidden_dim: int, projection_dim: int) -> nn.Sequential:
    """Two layers without batch norm (MoCo v2, arXiv 2003.04297, section 2)."""
    return nn.Sequential(
        nn.Linear(feature_dim, hidden_dim),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_dim, projection_dim),
    )


def swav_head(feature_dim: int, hidden_dim: int, projection_dim: int) -> nn.Sequential:
    """Two layers, batch norm on the hidden one (SwAV, arXiv 2006.09882, section 4): 2048-2048-128."""
    return _mlp(feature_dim, hidden_dim, projection_dim)


def byol_head(input_dim: int, hidden_dim: int, output_dim: int) -> nn.Sequential:
    """Two layers, batch norm on the hidden one, no bias on the output: projection and prediction of BYOL (arXiv
    2006.07733, section 3.3, and the authors' code), 2048-4096-256 and 256-4096-256.
    """
    return _mlp(input_dim, hidden_dim, output_dim, output_bias=False)


def prediction_head(projection_dim: int, hidden_dim: int) -> nn.Sequential:
    """Two layers from projections to projections, batch norm on the hidden one: SimSiam (arXiv 2011.10566, section 3),
    2048-512-2048, and NNCLR (arXiv 2104.14548, section 4.1), 256-4096-256.
    """
    return _mlp(projection_dim, hidden_dim, projection_dim)


def simsiam_head(feature_dim: int, hidden_dim: int, projection_dim: int, num_layers: int = 3) -> nn.Sequential:
    """Batch norm on every layer, that of the output without weights (SimSiam, arXiv 2011.10566, section 3, and the
    authors' code): 2048-2048-2048-2048.
    """
    hidden = [hidden_dim] * (num_layers - 1)
    return _mlp(feature_dim, *hidden, projection_dim, last=nn.BatchNorm1d(projection_dim, affine=False))


def nnclr_head(feature_dim: int, hidden_dim: int, projection_dim: int, num_layers: int = 3) -> nn.Sequential:
    """Batch norm on every layer (NNCLR, arXiv 2104.14548, section 4.1): 2048-2048-2048-256."""
    hidden = [hidden_dim] * (num_layers - 1)
    return _mlp(feature_dim, *hidden, projection_dim, last=nn.BatchNorm1d(projection_dim))


def expander_head(feature_dim: int, hidden_dim: int, projection_dim: int, num_layers: int = 3) -> nn.Sequential:
    """Batch norm on the hidden layers, an output wider than the features: Barlow Twins (arXiv 2103.03230, section 3.1)
    and VICReg (arXiv 2105.04906, section 4.2), 2048-8192-8192-8192.

    The output has no bias: both losses take the mean away.
    """
    hidden = [hidden_dim] * (num_layers - 1)
    return _mlp(feature_dim, *hidden, projection_dim, output_bias=False)


def dino_head(feature_dim: int, hidden_dim: int, projection_dim: int, *, batch_norm: bool) -> nn.Sequential:
    """Three layers with GELU, up to the bottleneck (DINO, arXiv 2104.14294, section 3.1 and appendix C)."""

    def hidden(in_dim: int) -> list[nn.Module]:
        norm = [nn.BatchNorm1d(hidden_dim)] if batch_norm else []
        return [nn.Linear(in_dim, hidden_dim, bias=not batch_norm), *norm, nn.GELU()]

    head = nn.Sequential(*hidden(feature_dim), *hidden(hidden_dim), nn.Linear(hidden_dim, projection_dim))
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return head


def _mlp(*widths: int, last: nn.Module | None = None, output_bias: bool = True) -> nn.Sequential:
    """Linear layers from width to width, each but the last followed by batch norm and ReLU, the last by `last`."""
    layers: list[nn.Module] = []
    for before, width in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(before, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=last is None and output_bias))
    return nn.Sequential(*layers, *([] if last is None else [last]))
