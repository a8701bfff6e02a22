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
