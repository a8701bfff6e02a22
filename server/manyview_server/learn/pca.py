"""Principal components of more rows than fit into memory: the covariance is summed up chunk by chunk.

Shapes: n rows of a chunk, N rows in all, D features, d components kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

SMALLEST_VARIANCE = 1e-12
"""Smallest variance as a share of the total variance. A smaller one is rounding error, and whitening must not enlarge
it."""


@dataclass(frozen=True, kw_only=True)
class Pca:
    """Directions of the greatest variance, in float64, the greatest first."""

    mean: Tensor
    """(D,)."""
    components: Tensor
    """(d, D), orthonormal rows. The entry of largest magnitude in each row is positive."""
    variances: Tensor
    """(d,), the variance of the rows along each component."""
    total_variance: float
    """The variance of the rows along all D directions."""

    @property
    def variance_kept(self) -> float:
        """The share of the variance that the components hold, from 0 to 1; 1 if all rows are equal."""
        return min(1.0, float(self.variances.sum()) / self.total_variance) if self.total_variance > 0 else 1.0

    def first(self, num_components: int) -> Pca:
        """Return a copy with only the first components."""
        if not 1 <= num_components <= len(self.components):
            raise ValueError(f"num_components must be from 1 to {len(self.components)}, not {num_components}")
        return replace(self, components=self.components[:num_components], variances=self.variances[:num_components])

    def keeping(self, variance_fraction: float) -> Pca:
        """Return a copy with the fewest components that keep at least this share of the variance."""
        if not 0 < variance_fraction <= 1:
            raise ValueError(f"variance_fraction must be above 0 and at most 1, not {variance_fraction}")
        wanted = variance_fraction * self.total_variance * (1 - SMALLEST_VARIANCE)
        too_few = (self.variances.cumsum(0) < wanted).sum()
        return self.first(min(int(too_few) + 1, len(self.components)))

    def matrix(self, *, whiten: bool = False) -> Tensor:
        """Return (d, D), by which centred rows are multiplied: the components, scaled to give variance 1 if
        `whiten`."""
        if not whiten:
            return self.components
        least = SMALLEST_VARIANCE * self.total_variance or 1.0
        return self.components / self.variances.clamp_min(least).sqrt()[:, None]


def fit(chunks: Iterable[Tensor]) -> Pca:
    """Fit all components of the rows. Their covariance is summed up in float64 and then decomposed (`eigh`).

    Args:
        chunks: (n, D) each, finite; iterated once, one chunk at a time.

    Returns:
        As many components as are meaningful: D, or N - 1 if that is less.

    Raises:
        ValueError: fewer than two rows, or chunks of different widths.
    """
    shift, sums, products, num_rows = None, None, None, 0
    for chunk in chunks:
        if len(chunk) == 0:
            continue
        if shift is None or sums is None or products is None:
            # A shift near the mean, so that the covariance is not a small difference of large numbers.
            shift = chunk.double().mean(0)
            sums, products = torch.zeros_like(shift), torch.zeros(len(shift), len(shift)).to(shift)
        if chunk.shape[1:] != shift.shape:
            raise ValueError(f"rows must all have {len(shift)} features, not {tuple(chunk.shape[1:])}")
        rows = chunk.double() - shift
        sums += rows.sum(0)
        products.addmm_(rows.T, rows)
        num_rows += len(chunk)
    if shift is None or sums is None or products is None or num_rows < 2:
        raise ValueError(f"principal components need at least two rows, not {num_rows}")
    covariance = (products - torch.outer(sums, sums) / num_rows) / (num_rows - 1)
    variances, vectors = torch.linalg.eigh(covariance)
    most = min(num_rows - 1, len(shift))
    components = vectors.T.flip(0)[:most].contiguous()
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    return Pca(
        mean=shift + sums / num_rows,
        components=components * largest.sign(),
        variances=variances.flip(0)[:most].clamp_min(0),
        total_variance=float(covariance.trace()),
    )
