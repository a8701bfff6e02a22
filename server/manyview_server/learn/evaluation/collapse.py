"""Collapse: all images at the same place, or in few directions, which some losses cannot see.

Every number here is of features alone: no labels, no loss. Computed in float32 at least, on the device of the
features, whatever autocast says; `effective_rank` waits for a GPU, the others do not.
Shapes: V views, B batch, N rows, D feature or projection width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK_PAIRS = 4_000_000
"""Pairs held at a time (16 MB in float32)."""


def representation_std(features: Tensor) -> Tensor:
    """Standard deviation of the L2-normalised rows, per dimension over the batch, then averaged (SimSiam, arXiv
    2011.10566, section 4.1).

    0 where all rows point the same way; `healthy_std` where they are spread evenly over the sphere.

    Args:
        features: (N, D), of any float type and length.

    Returns:
        0-d, on the device. 0 for a single row, which has no spread.

    Raises:
        ValueError: features that are not (N, D).
    """
    unit = _unit(features)
    if len(unit) == 1:
        return unit.new_zeros(())
    return unit.std(dim=0).mean()


def healthy_std(dim: int) -> float:
    """1 / sqrt(D), what `representation_std` is for isotropic features of width `dim`."""
    return 1 / math.sqrt(dim)


def alignment(views: Tensor) -> Tensor:
    """How far apart the views of an image lie: the mean squared distance of two of them, on the unit sphere (Wang and
    Isola, arXiv 2005.10242, section 4.1, with alpha = 2).

    Over all pairs of views of an image, then over the images: 0 where views coincide, 2 where they have nothing in
    common, 4 where they are opposite.

    Args:
        views: (V, B, D), of any float type and length; row b of each view is of image b.

    Returns:
        0-d, on the device. 0 for a single view.

    Raises:
        ValueError: views that are not (V, B, D).
    """
    if views.ndim != 3 or views.numel() == 0:
        raise ValueError(f"views must be (V, B, D), not {tuple(views.shape)}")
    num_views = len(views)
    unit = _unit(views.flatten(0, 1)).view(views.shape)
    # The sum over the pairs of V points is V times the sum of their squared distances from their mean.
    from_mean = (unit - unit.mean(dim=0)).square().sum(dim=(0, 2))  # (B,)
    return 2 / max(1, num_views - 1) * from_mean.mean()


def uniformity(features: Tensor, t: float = 2.0) -> Tensor:
    """How evenly the L2-normalised rows cover the sphere: log of the mean of e^(-t |x - y|^2) over all pairs of
    different rows (Wang and Isola, arXiv 2005.10242, section 4.1).

    0 where all rows point the same way; near -2t where they are spread evenly over a sphere of many dimensions. The
    mean is that of the pairs alone, without bias; its logarithm is too low by half its relative variance, which is
    under 0.01 from 64 rows on.

    Args:
        features: (N, D), of any float type and length. Rows of one view each: pairs of views are `alignment`'s.

    Returns:
        0-d, on the device. 0 for a single row, which has no pair.

    Raises:
        ValueError: features that are not (N, D), or t that is not above 0.
    """
    unit = _unit(features)
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
    """How many directions the rows fill: e to the entropy of their singular values, scaled to sum 1 (RankMe, Garrido et
    al., arXiv 2210.02885, equation 2).

    1 where all rows lie on one line, D where they fill all dimensions alike; never above N, so that numbers of batches
    of different sizes do not compare. It sees dimensions that died, which the spread does not.

    Differs from the paper: no epsilon inside of the logarithm; 0 log 0 is 0.

    Args:
        features: (N, D), of any float type. Neither centred nor normalised, as in the paper.

    Returns:
        0-d float64, on the device; 0 for rows of zeros, NaN where a feature is not finite. Waits for a GPU.

    Raises:
        ValueError: features that are not (N, D).
    """
    return effective_rank_of_gram(gram(features))


def gram(features: Tensor) -> Tensor:
    """The products of all rows, (N, N), or of all columns where these are fewer, (D, D): what `effective_rank` needs of
    the features. float64, since its eigenvalues are the squares of what is looked for.

    Raises:
        ValueError: features that are not (N, D).
    """
    _check(features)
    wide = features.to(torch.float64)
    return wide @ wide.T if wide.shape[0] <= wide.shape[1] else wide.T @ wide


def effective_rank_of_gram(products: Tensor) -> Tensor:
    """`effective_rank` of the features whose `gram` this is: for a trainer, which moves it to the host beforehand."""
    finite = products.isfinite().all()
    eigenvalues = torch.linalg.eigvalsh(torch.where(finite, products, 0))
    singular = eigenvalues.clamp(min=0).sqrt()
    total = singular.sum()
    entropy = torch.special.entr(singular / total).sum()
    rank = torch.where(total > 0, entropy.exp(), 0)
    return torch.where(finite, rank, math.nan)


def _unit(features: Tensor) -> Tensor:
    _check(features)
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=1)


def _check(features: Tensor) -> None:
    if features.ndim != 2 or features.numel() == 0:
        raise ValueError(f"features must be (N, D), not {tuple(features.shape)}")
