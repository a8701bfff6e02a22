"""Nearest neighbours: how well features tell classes apart, without training on labels.

Shapes: Q queries, N bank rows, D feature width, C classes, k neighbours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from manyview_server.configuration import setting

CHUNK_LOGITS = 4_000_000
"""Similarities held at a time (16 MB in float32)."""


@dataclass(frozen=True, kw_only=True)
class VoteSettings:
    """How nearest neighbors vote."""

    k: int = setting(20, "Neighbors that vote; at most as many as there are.", minimum=1, maximum=10_000)
    temperature: float = setting(
        0.07, "Temperature of the votes, exp(cosine / temperature).", minimum=0.01, maximum=100
    )


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Accuracy of nearest neighbors and of a linear classifier among labelled images, while training."""

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
    knn_more: tuple[VoteSettings, ...] = setting(
        (VoteSettings(),),
        "Further votes, taken from the same similarities and told as knn_top1_kK_tTEMPERATURE.",
        needs=("knn_every_epochs",),
    )
    knn_holdout_fraction: float = setting(
        0.1,
        "Share of the labelled images that are held out of training; 10,000 of them at most are classified.",
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
    linear_probe: bool = setting(
        True,
        "Whether a linear classifier of the features is trained along, on the labelled training images, and evaluated "
        "as kNN is. It has no influence on the features.",
        needs=("knn_every_epochs",),
    )
    linear_learning_rate: float = setting(
        0.1,
        "Peak learning rate of the linear classifier, which falls along a cosine to 0.",
        exclusive_minimum=0,
        maximum=100,
        needs=("knn_every_epochs", "linear_probe"),
    )


def knn_rankings(
    features: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    num_classes: int,
    votes: Iterable[tuple[int, float]],
    *,
    best: int | None = None,
) -> dict[tuple[int, float], Tensor]:
    """Classes of each query, the best first, by weighted votes of its nearest bank rows, one for each (k, temperature).

    A neighbour at cosine s votes with e^(s / temperature) for its class (Wu et al., arXiv 1805.01978, section 3.4).
    Classes without a vote follow in ascending order, as do ties. Similarities are taken once, whatever is asked for.

    Args:
        features: (Q, D), of any length; normalised here.
        bank: (N, D), likewise.
        bank_labels: (N,) int64 in [0, num_classes).
        votes: (k, temperature): k at least 1, and as many as there are where the bank has fewer; temperature above 0.
        best: so many classes of each ranking, or all.

    Returns:
        (Q, min(C, best)) int64 by (k, temperature).

    Raises:
        ValueError: an empty bank, shapes that do not fit, no vote, or a k or temperature that is not above 0.
    """
    rankings: dict[tuple[int, float], list[Tensor]] = {vote: [] for vote in votes}
    _check(features, bank, bank_labels, rankings)
    most = min(max(k for k, _ in rankings), len(bank))
    unit_bank = _unit(bank)
    for chunk in torch.split(_unit(features), max(1, CHUNK_LOGITS // max(len(bank), num_classes))):
        similarity, neighbours = (chunk @ unit_bank.T).topk(most, dim=1)  # (q, most), the nearest first
        classes = bank_labels[neighbours]
        for (k, temperature), found in rankings.items():
            # Shifted by the nearest one's: the ranking stays, and small temperatures do not overflow.
            weights = ((similarity[:, :k] - similarity[:, :1]) / temperature).exp()
            scores = weights.new_zeros(len(chunk), num_classes).scatter_add_(1, classes[:, :k], weights)
            found.append(scores.argsort(dim=1, descending=True, stable=True)[:, :best].clone())  # not all of the rest
    return {key: torch.cat(found) for key, found in rankings.items()}


def knn_predict(
    features: Tensor, bank: Tensor, bank_labels: Tensor, num_classes: int, k: int = 200, temperature: float = 0.1
) -> Tensor:
    """The one of `knn_rankings` for this k and temperature, (Q, C) int64. Raises as it."""
    return knn_rankings(features, bank, bank_labels, num_classes, [(k, temperature)])[k, temperature]


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
    return topk_accuracy(knn_predict(features, bank, bank_labels, num_classes, k, temperature), labels, 1)


def topk_accuracy(rankings: Tensor, labels: Tensor, k: int) -> Tensor:
    """Share of the rows whose label is among the first k of their ranking.

    Args:
        rankings: (Q, C') int64, the best class first.
        labels: (Q,) int64.

    Returns:
        0-d float32 on the device, from 0 to 1.

    Raises:
        ValueError: no rows, labels that do not fit them, or k below 1.
    """
    if rankings.ndim != 2 or len(rankings) == 0 or labels.shape != rankings.shape[:1]:
        raise ValueError(f"queries and their labels, not {tuple(rankings.shape)} and {tuple(labels.shape)}")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    return (rankings[:, :k] == labels[:, None]).any(dim=1).float().mean()


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


def _check(features: Tensor, bank: Tensor, bank_labels: Tensor, votes: Collection[tuple[int, float]]) -> None:
    if bank.ndim != 2 or len(bank) == 0 or bank_labels.shape != bank.shape[:1]:
        raise ValueError(f"a bank of rows and their labels, not {tuple(bank.shape)} and {tuple(bank_labels.shape)}")
    if features.ndim != 2 or features.shape[1] != bank.shape[1]:
        raise ValueError(f"features must be (Q, {bank.shape[1]}), not {tuple(features.shape)}")
    if not votes:
        raise ValueError("there must be a vote, (k, temperature)")
    for k, temperature in votes:
        if k < 1 or not temperature > 0:
            raise ValueError(f"k and temperature must be above 0, not {k} and {temperature}")


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=1)
