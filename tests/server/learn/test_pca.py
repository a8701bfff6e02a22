from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from manyview_server.learn import pca


def transform(found: pca.Pca, rows: Tensor, *, whiten: bool = False) -> Tensor:
    """Project rows on the components, as the server does with tables."""
    return ((rows.to(found.mean) - found.mean) @ found.matrix(whiten=whiten).T).to(rows.dtype)


def rows(num_rows: int, num_features: int, seed: int = 0, offset: float = 0.0) -> Tensor:
    """Correlated rows of very different variances."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(num_features, num_features, generator=generator, dtype=torch.float64)
    scale = torch.logspace(0, -2, num_features, dtype=torch.float64)
    return torch.randn(num_rows, num_features, generator=generator, dtype=torch.float64) * scale @ mix + offset


@settings(deadline=None)
@given(shape=st.sampled_from([(50, 8), (8, 50), (2, 5), (200, 1)]), size=st.integers(1, 60), seed=st.integers(0, 99))
def test_as_numpy_s_singular_values_whatever_the_chunks(shape: tuple[int, int], size: int, seed: int) -> None:
    x = rows(*shape, seed=seed, offset=10.0)
    found = pca.fit(x.split(size))
    centred = x.numpy() - x.numpy().mean(0)
    _, singular, vectors = np.linalg.svd(centred, full_matrices=False)
    most = min(shape[0] - 1, shape[1])
    np.testing.assert_allclose(found.mean, x.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.variances, singular[:most] ** 2 / (shape[0] - 1), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.total_variance, x.numpy().var(0, ddof=1).sum(), rtol=1e-9)
    cosines = np.abs((found.components.numpy() * vectors[:most]).sum(1))
    told_apart = np.diff(singular[:most] ** 2, append=0, prepend=np.inf)
    assert (cosines[np.minimum(-told_apart[:-1], -told_apart[1:]) > 1e-3] > 1 - 1e-6).all()
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(most), atol=1e-9)


def test_a_large_mean_costs_no_digits() -> None:
    x = rows(1000, 6)
    near, far = pca.fit(x.split(100)), pca.fit((x + 1e6).split(100))
    np.testing.assert_allclose(far.variances, near.variances, rtol=1e-6)


def test_kept_variance_by_number_and_by_share() -> None:
    x = rows(500, 10, seed=4)
    whole = pca.fit([x])
    shares = (whole.variances / whole.total_variance).cumsum(0)
    assert whole.variance_kept == pytest.approx(1)
    assert whole.first(3).variance_kept == pytest.approx(float(shares[2]))
    for fraction in (0.1, 0.5, 0.9, 0.999, 1.0):
        kept = whole.keeping(fraction)
        d = len(kept.components)
        assert kept.variance_kept >= fraction - 1e-9
        assert d == 1 or shares[d - 2] < fraction
    centred = x - x.mean(0)
    lost = centred - transform(whole.first(3), x) @ whole.first(3).components
    assert 1 - float(lost.square().sum() / centred.square().sum()) == pytest.approx(whole.first(3).variance_kept)


def test_whitened_rows_have_variance_one_in_each_direction_and_no_correlation() -> None:
    x = rows(400, 5)
    white = transform(pca.fit([x]), x, whiten=True)
    torch.testing.assert_close(white.T.cov(), torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-9)
    plain = transform(pca.fit([x]).first(2), x.float())
    assert plain.dtype == torch.float32
    torch.testing.assert_close(plain.T.double().cov().diag(), pca.fit([x]).variances[:2], rtol=1e-4, atol=0)


def test_directions_without_variance_do_not_blow_up() -> None:
    x = torch.cat([rows(50, 3), torch.ones(50, 2)], dim=1)
    found = pca.fit([x])
    assert len(found.keeping(1.0).components) == 3
    assert transform(found, x, whiten=True).abs().max() < 10
    flat = pca.fit([torch.ones(4, 3)])
    assert flat.variance_kept == 1
    assert transform(flat.keeping(1.0), torch.ones(4, 3), whiten=True).tolist() == [[0.0]] * 4


def test_the_signs_do_not_depend_on_the_order_of_the_rows() -> None:
    x = rows(60, 4, seed=2)
    torch.testing.assert_close(pca.fit([x.flip(0)]).components, pca.fit(x.split(7)).components)


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(ValueError, match="need at least two rows, not 1"):
        pca.fit([torch.empty(0, 3), torch.ones(1, 3)])
    with pytest.raises(ValueError, match="need at least two rows, not 0"):
        pca.fit([])
    with pytest.raises(ValueError, match="rows must all have 3 features"):
        pca.fit([torch.ones(2, 3), torch.ones(2, 4)])
    found = pca.fit([rows(9, 4)])
    for number in (0, 5):
        with pytest.raises(ValueError, match=f"num_components must be from 1 to 4, not {number}"):
            found.first(number)
    for share in (0.0, 1.1):
        with pytest.raises(ValueError, match=f"variance_fraction must be above 0 and at most 1, not {share}"):
            found.keeping(share)
