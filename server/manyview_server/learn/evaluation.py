"""Nearest neighbours: how well features tell classes apart, without training on labels.

Shapes: Q queries, N bank rows, D feature width, C classes, k neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from manyview_server.learn.schema import setting

CHUNK_LOGITS = 4_000_000
"""Similarities held at a time (16 MB in float32)."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Accuracy of nearest neighbors among labelled images, while training."""

    knn_every_epochs: int = setting(
        1, "Epochs between evaluations; 0 means none, nor is there any without labels.", minimum=0, maximum=100_000
    )
    knn_k: int = setting(
        200,
        "Neighbors that vote; at most as many as there are.",
        minimum=1,
        maximum=10_000,
        needs=("knn_every_epochs",),
    )
    knn_temperature: float = setting(
        0.1,
        "Temperature of the votes, exp(cosine / temperature).",
        minimum=0.01,
        maximum=100,
        needs=("knn_every_epochs",),
    )
    knn_holdout_fraction: float = setting(
        0.1,
        "Share of the labelled images that are held out of training and classified.",
        exclusive_minimum=0,
        maximum=0.9,
        needs=("knn_every_epochs",),
    )
    knn_max_bank: int = setting(
        10_000,
        "Most labelled training images among which neighbors are looked for.",
        minimum=1,
        maximum=10_000_000,
        needs=("knn_every_epochs",),
    )


def knn_predict(
    features: Tensor, bank: Tensor, bank_labels: Tensor, num_classes: int, k: int = 200, temperature: float = 0.1
) -> Tensor:
    """Classes of each query, the best first, by a weighted vote of its k nearest bank rows.

    A neighbour at cosine s votes with e^(s / temperature) for its class (Wu et al., arXiv 1805.01978, section 3.4).
    Classes without a vote follow in ascending order, as do ties.

    Args:
        features: (Q, D), of any length; normalised here.
        bank: (N, D), likewise.
        bank_labels: (N,) int64 in [0, num_classes).
        k: at least 1; as many as there are where the bank has fewer.

    Returns:
        (Q, C) int64.

    Raises:
        ValueError: an empty bank, shapes that do not fit, or k or temperature not above 0.
    """
    if bank.ndim != 2 or len(bank) == 0 or bank_labels.shape != bank.shape[:1]:
        raise ValueError(f"a bank of rows and their labels, not {tuple(bank.shape)} and {tuple(bank_labels.shape)}")
    if features.ndim != 2 or features.shape[1] != bank.shape[1]:
        raise ValueError(f"features must be (Q, {bank.shape[1]}), not {tuple(features.shape)}")
    if k < 1 or not temperature > 0:
        raise ValueError(f"k and temperature must be above 0, not {k} and {temperature}")
    k = min(k, len(bank))
    unit_bank = _unit(bank)
    rankings = []
    for chunk in torch.split(_unit(features), max(1, CHUNK_LOGITS // len(bank))):
        similarity, neighbours = (chunk @ unit_bank.T).topk(k, dim=1)  # (q, k)
        # Shifted by the nearest one's: the ranking stays, and small temperatures do not overflow.
        votes = ((similarity - similarity[:, :1]) / temperature).exp()
        scores = votes.new_zeros(len(chunk), num_classes)
        scores.scatter_add_(1, bank_labels[neighbours], votes)
        rankings.append(scores.argsort(dim=1, descending=True, stable=True))
    if not rankings:
        return bank_labels.new_zeros(0, num_classes)
    return torch.cat(rankings)


def knn_top1(
    features: Tensor,
    labels: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    num_classes: int,
    k: int = 200,
    temperature: float = 0.1,
) -> Tensor:
    """Share of the queries whose best class, by `knn_predict`, is their label.

    Returns:
        0-d float32 on the device, from 0 to 1.

    Raises:
        ValueError: as `knn_predict`; no queries; or labels that do not fit them.
    """
    if len(features) == 0 or labels.shape != features.shape[:1]:
        raise ValueError(f"queries and their labels, not {tuple(features.shape)} and {tuple(labels.shape)}")
    best = knn_predict(features, bank, bank_labels, num_classes, k, temperature)[:, 0]
    return (best == labels).float().mean()


def raw_pixel_features(images: Tensor, largest_side: int = 32) -> Tensor:
    """Pixels as features: the baseline that learning has to beat.

    Give the images as the network gets them, normalised: cosines between pixels from 0 to 1 see little but brightness
    (CIFAR-10 with 10,000 images as the bank and k = 200: 26 % top-1 instead of 34 %).

    Args:
        images: (N, 3, H, W) floats.
        largest_side: larger images are averaged down to this many pixels a side, to bound the memory.

    Returns:
        (N, 3 h w), float32.
    """
    height, width = (min(side, largest_side) for side in images.shape[2:])
    return F.adaptive_avg_pool2d(images.float(), (height, width)).flatten(1)


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=1)
