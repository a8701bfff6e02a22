"""Measures of collapse: all images get the same features, or features in few directions. Some losses cannot see that.

Every measure uses only features: no labels, no loss. It is computed in float32 at least, on the device of the features,
even under autocast. `effective_rank` waits for a GPU; the others do not.
Shapes: V views, B batch, N rows, D feature or projection width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from manyview_server.learn.normalize import unit_rows

SMALLEST_LENGTH = 1e-12
"""Shorter rows are not scaled to length 1."""
CHUNK_PAIRS = 4_000_000
"""Number of pairs held at a time (16 MB in float32)."""


def representation_std(features: Tensor) -> Tensor:
    """Return the standard deviation of the L2-normalised rows, per dimension over the batch, then averaged (SimSiam,
    arXiv 2011.10566, section 4.1).

    It is 0 if all rows point the same way, and 1 / sqrt(D) if they are spread evenly over the sphere.

    Args:
        features: (N, D), of any float type and length.

    Returns:
        0-d, on the device. 0 for a single row, which has no spread.

    Raises:
        ValueError: features that are not (N, D).
    """
    unit = _unit_rows(features)
    if len(unit) == 1:
        return unit.new_zeros(())
    return unit.std(dim=0).mean()


def alignment(views: Tensor) -> Tensor:
    """Return the mean squared distance of two views of an image on the unit sphere (Wang and Isola, arXiv 2005.10242,
    section 4.1, with alpha = 2).

    The mean is over all pairs of views of an image, then over the images. It is 0 if the views coincide, 2 if they have
    nothing in common, 4 if they are opposite.

    Args:
        views: (V, B, D), of any float type and length; row b of each view belongs to image b.

    Returns:
        0-d, on the device. 0 for a single view.

    Raises:
        ValueError: views that are not (V, B, D).
    """
    if views.ndim != 3 or views.numel() == 0:
        raise ValueError(f"views must be (V, B, D), not {tuple(views.shape)}")
    num_views = len(views)
    unit = _unit_rows(views.flatten(0, 1)).view(views.shape)
    # The sum over the pairs of V points is V times the sum of their squared distances from their mean.
    from_mean = (unit - unit.mean(dim=0)).square().sum(dim=(0, 2))  # (B,)
    return 2 / max(1, num_views - 1) * from_mean.mean()


def uniformity(features: Tensor, t: float = 2.0) -> Tensor:
    """Measure how evenly the L2-normalised rows cover the sphere: the logarithm of the mean of e^(-t |x - y|^2) over
    all pairs of different rows (Wang and Isola, arXiv 2005.10242, section 4.1).

    It is 0 if all rows point the same way, and near -2t if they are spread evenly over a sphere of many dimensions. The
    mean over the pairs is without bias. Its logarithm is too low by half its relative variance, which is below 0.01
    from 64 rows on.

    Args:
        features: (N, D), of any float type and length. Give one view of each image: `alignment` measures pairs of
            views.

    Returns:
        0-d, on the device. 0 for a single row, which has no pair.

    Raises:
        ValueError: features that are not (N, D), or t that is not above 0.
    """
    unit = _unit_rows(features)
    if not t > 0:
        raise ValueError(f"t must be above 0, not {t}")
    num_rows = len(unit)
    if num_rows == 1:
        return unit.new_zeros(())
    rows_at_a_time = max(1, CHUNK_PAIRS // num_rows)
    sums = []
    with torch.autocast(unit.device.type, enabled=False):
        for start in range(0, num_rows, rows_at_a_time):
            chunk = unit[start : start + rows_at_a_time]
            exponents = (chunk @ unit.T - 1).clamp_(max=0).mul_(2 * t)  # |x - y|^2 = 2 - 2 x.y
            exponents.diagonal(start).fill_(-math.inf)
            sums.append(exponents.flatten().logsumexp(dim=0))
    return torch.stack(sums).logsumexp(dim=0) - math.log(num_rows * (num_rows - 1))


def effective_rank(features: Tensor) -> Tensor:
    """Return the number of directions that the rows fill: e to the entropy of their singular values, scaled to sum 1
    (RankMe, Garrido et al., arXiv 2210.02885, equation 2).

    It is 1 if all rows lie on one line, and D if they fill all dimensions equally. It is never above N, so do not
    compare batches of different sizes. It sees dimensions that died, which the standard deviation does not.

    Differs from the paper: there is no epsilon inside the logarithm; 0 log 0 is 0.

    Args:
        features: (N, D), of any float type. They are neither centred nor normalised, as in the paper.

    Returns:
        0-d float64, on the device: 0 for rows of zeros, NaN if a feature is not finite. Waits for a GPU.

    Raises:
        ValueError: features that are not (N, D).
    """
    return effective_rank_of_gram(gram(features))


def gram(features: Tensor) -> Tensor:
    """Return the products of all rows, (N, N), or of all columns if these are fewer, (D, D): `effective_rank` needs no
    more of the features. They are float64, because their eigenvalues are the squares of the singular values.

    Raises:
        ValueError: features that are not (N, D).
    """
    _check(features)
    wide = features.to(torch.float64)
    return wide @ wide.T if wide.shape[0] <= wide.shape[1] else wide.T @ wide


def effective_rank_of_gram(products: Tensor) -> Tensor:
    """Return the `effective_rank` of the features whose `gram` this is. A trainer moves `products` to the host
    first."""
    finite = products.isfinite().all()
    eigenvalues = torch.linalg.eigvalsh(torch.where(finite, products, 0))
    singular = eigenvalues.clamp(min=0).sqrt()
    total = singular.sum()
    entropy = torch.special.entr(singular / total).sum()
    rank = torch.where(total > 0, entropy.exp(), 0)
    return torch.where(finite, rank, math.nan)


def _unit_rows(features: Tensor) -> Tensor:
    _check(features)
    return unit_rows(features, eps=SMALLEST_LENGTH)


def _check(features: Tensor) -> None:
    if features.ndim != 2 or features.numel() == 0:
        raise ValueError(f"features must be (N, D), not {tuple(features.shape)}")
