"""Classification by nearest neighbors: a measure of how well features separate classes, without training on labels.

Shapes: Q queries, N bank rows, D feature width, C classes, k neighbors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from manyview_server.configuration import setting
from manyview_server.learn.evaluation.collapse import SMALLEST_LENGTH
from manyview_server.learn.normalize import unit_rows

CHUNK_LOGITS = 4_000_000
"""Number of similarities held at a time (16 MB in float32)."""


@dataclass(frozen=True, kw_only=True)
class VoteSettings:
    """A vote of the nearest neighbors."""

    k: int = setting(20, "Neighbors that vote; at most as many as there are.", minimum=1, maximum=10_000)
    temperature: float = setting(
        0.07, "Temperature of the votes, exp(cosine / temperature).", minimum=0.01, maximum=100
    )


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Accuracy of nearest neighbors and of a linear classifier among labelled images, while training."""

    knn_every_epochs: int = setting(
        1,
        "Epochs between evaluations; 0 means none. Images without labels are not evaluated.",
        minimum=0,
        maximum=100_000,
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
        "Further votes, from the same similarities, reported as knn_top1_kK_tTEMPERATURE.",
        needs=("knn_every_epochs",),
    )
    knn_holdout_fraction: float = setting(
        0.1,
        "Share of the labelled images that are held out of training. At most 10,000 of them are classified.",
        exclusive_minimum=0,
        maximum=0.9,
        needs=("knn_every_epochs",),
    )
    knn_max_bank: int = setting(
        10_000,
        "Largest number of labelled training images among which neighbors are searched.",
        minimum=1,
        maximum=10_000_000,
        needs=("knn_every_epochs",),
    )
    linear_probe: bool = setting(
        True,
        "Whether a linear classifier of the features is trained alongside, on the labelled training images, and "
        "evaluated like kNN. It has no influence on the features.",
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
    """Rank the classes of each query by weighted votes of its nearest bank rows, once for each (k, temperature).

    A neighbor at cosine s votes with e^(s / temperature) for its class (Wu et al., arXiv 1805.01978, section 3.4).
    The best class comes first. Classes without a vote follow in ascending order, as do ties. Similarities are computed
    only once for all votes.

    Args:
        features: (Q, D), of any length; they are normalised here.
        bank: (N, D), likewise.
        bank_labels: (N,) int64 in [0, num_classes).
        votes: (k, temperature) with k at least 1 and temperature above 0. A k above N counts as N.
        best: number of classes to keep of each ranking; None keeps all.

    Returns:
        (Q, min(C, best)) int64 by (k, temperature).

    Raises:
        ValueError: an empty bank, shapes that do not fit, no vote, or a k or temperature that is not above 0.
    """
    rankings: dict[tuple[int, float], list[Tensor]] = {vote: [] for vote in votes}
    _check(features, bank, bank_labels, rankings)
    most = min(max(k for k, _ in rankings), len(bank))
    unit_bank = unit_rows(bank, eps=SMALLEST_LENGTH)
    for chunk in torch.split(
        unit_rows(features, eps=SMALLEST_LENGTH), max(1, CHUNK_LOGITS // max(len(bank), num_classes))
    ):
        similarity, neighbors = (chunk @ unit_bank.T).topk(most, dim=1)  # (q, most), the nearest first
        classes = bank_labels[neighbors]
        for (k, temperature), found in rankings.items():
            # Shifted by the nearest similarity: the ranking stays the same, and small temperatures do not overflow.
            weights = ((similarity[:, :k] - similarity[:, :1]) / temperature).exp()
            scores = weights.new_zeros(len(chunk), num_classes).scatter_add_(1, classes[:, :k], weights)
            found.append(scores.argsort(dim=1, descending=True, stable=True)[:, :best].clone())  # a copy frees the rest
    return {key: torch.cat(found) for key, found in rankings.items()}


def topk_accuracy(rankings: Tensor, labels: Tensor, k: int) -> Tensor:
    """Return the share of the rows whose label is among the first k of their ranking.

    Args:
        rankings: (Q, C') int64, the best class first.
        labels: (Q,) int64.

    Returns:
        0-d float32 on the device, from 0 to 1.

    Raises:
        ValueError: no rows, labels that do not fit the rows, or k below 1.
    """
    if rankings.ndim != 2 or len(rankings) == 0 or labels.shape != rankings.shape[:1]:
        raise ValueError(
            f"rankings must be (Q, C) and labels (Q,), not {tuple(rankings.shape)} and {tuple(labels.shape)}"
        )
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    return (rankings[:, :k] == labels[:, None]).any(dim=1).float().mean()


def raw_pixel_features(images: Tensor, largest_side: int = 32) -> Tensor:
    """Return the pixels as features: the baseline that learning has to beat.

    Give the images normalised, as the network gets them: cosines between pixels from 0 to 1 see little but brightness
    (CIFAR-10 with 10,000 images as the bank and k = 200: 26 % top-1 instead of 34 %).

    Args:
        images: (N, 3, H, W) floats.
        largest_side: larger images are averaged down to this many pixels on a side, to bound the memory.

    Returns:
        (N, 3 h w), float32.
    """
    height, width = (min(side, largest_side) for side in images.shape[2:])
    return F.adaptive_avg_pool2d(images.float(), (height, width)).flatten(1)


def _check(features: Tensor, bank: Tensor, bank_labels: Tensor, votes: Collection[tuple[int, float]]) -> None:
    if bank.ndim != 2 or len(bank) == 0 or bank_labels.shape != bank.shape[:1]:
        raise ValueError(
            f"the bank must be (N, D) and its labels (N,), not {tuple(bank.shape)} and {tuple(bank_labels.shape)}"
        )
    if features.ndim != 2 or features.shape[1] != bank.shape[1]:
        raise ValueError(f"features must be (Q, {bank.shape[1]}), not {tuple(features.shape)}")
    if not votes:
        raise ValueError("votes must hold at least one (k, temperature)")
    for k, temperature in votes:
        if k < 1 or not temperature > 0:
            raise ValueError(f"k and temperature must be above 0, not {k} and {temperature}")
