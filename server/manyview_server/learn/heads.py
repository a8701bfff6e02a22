"""Projection heads: features (B, D) to the projections (B, P) in which the loss is taken.

The head is thrown away after training: the layer before it represents images better (SimCLR, arXiv 2002.05709,
section 4.2).
"""

from __future__ import annotations

from torch import nn


def simclr_head(feature_dim: int, hidden_dim: int, projection_dim: int) -> nn.Sequential:
    """Two layers with batch norm on both (arXiv 2002.05709, section 2.1; the authors' code norms the output, too)."""
    return nn.Sequential(
        nn.Linear(feature_dim, hidden_dim, bias=False),
        nn.BatchNorm1d(hidden_dim),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_dim, projection_dim, bias=False),
        nn.BatchNorm1d(projection_dim),
    )


def moco_head(feature_dim: int, hidden_dim: int, projection_dim: int) -> nn.Sequential:
    """Two layers without batch norm (MoCo v2, arXiv 2003.04297, section 2)."""
    return nn.Sequential(
        nn.Linear(feature_dim, hidden_dim),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_dim, projection_dim),
    )


def swav_head(feature_dim: int, hidden_dim: int, projection_dim: int) -> nn.Sequential:
    """Two layers with batch norm on the hidden one (SwAV, arXiv 2006.09882, appendix A)."""
    return nn.Sequential(
        nn.Linear(feature_dim, hidden_dim, bias=False),
        nn.BatchNorm1d(hidden_dim),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_dim, projection_dim),
    )


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
