from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from manyview_server.learn.losses import barlow_twins, redundancy, vicreg
from support.learning.golden import waves


@pytest.mark.parametrize(
    ("loss", "expected", "gradient_norm"),
    [(barlow_twins, 12.84568535, 5.57639985), (vicreg, 29.77629424, 3.42377008)],
)
def test_they_have_the_reference_values(loss: Any, expected: float, gradient_norm: float) -> None:
    a, b = waves(8, 16, 0.1).requires_grad_(), waves(8, 16, 1.3)
    value = loss(a, b)
    value.backward()
    assert a.grad is not None
    assert value.item() == pytest.approx(expected, abs=1e-6)
    assert a.grad.norm().item() == pytest.approx(gradient_norm, abs=1e-6)


@pytest.mark.parametrize("loss", [barlow_twins, vicreg])
def test_they_are_symmetric_and_bfloat16_computes_in_float32(loss: Any) -> None:
    z0, z1 = waves(6, 5, 0.4), waves(6, 5, 2.0)
    assert loss(z0, z1).item() == pytest.approx(loss(z1, z0).item(), rel=1e-12)
    half0, half1 = z0.bfloat16(), z1.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(half0, half1)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(half0.double(), half1.double()).item(), rel=1e-5)


def test_barlow_twins_is_the_authors_formula_with_their_batch_norm() -> None:
    z0, z1 = waves(10, 4, 0.3), waves(10, 4, 0.9)
    norm = torch.nn.BatchNorm1d(4, affine=False, dtype=torch.float64)
    c = norm(z0).T @ norm(z1) / 10
    expected = sum((c[i, j] - 1) ** 2 if i == j else 0.25 * c[i, j] ** 2 for i in range(4) for j in range(4))
    assert barlow_twins(z0, z1, 0.25).item() == pytest.approx(float(expected), abs=1e-9)


def test_barlow_twins_by_hand() -> None:
    """One axis that agrees and one that is opposite: the diagonal is 1 and -1, nothing else correlates."""
    z0 = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    z1 = z0 * torch.tensor([1.0, -1.0])
    assert barlow_twins(z0, z1).item() == pytest.approx(4, abs=1e-3)
    assert barlow_twins(z0, z0).item() == pytest.approx(0, abs=1e-3)


def test_vicreg_is_the_authors_formula_term_by_term() -> None:
    z0, z1 = waves(6, 3, 0.3), waves(6, 3, 0.9)
    assert vicreg(z0, z1, 1, 0, 0).item() == pytest.approx(F.mse_loss(z0, z1).item())
    hinges = [F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean().item() for z in (z0, z1)]
    assert vicreg(z0, z1, 0, 1, 0).item() == pytest.approx(sum(hinges) / 2)
    total = 0.0
    for z in (z0, z1):
        c = torch.cov(z.T)
        total += float((c - c.diagonal().diag()).square().sum()) / 3
    assert vicreg(z0, z1, 0, 0, 1).item() == pytest.approx(total)


def test_degenerate_batches_are_finite_or_refused() -> None:
    constant = torch.ones(4, 3, requires_grad=True)
    for loss in (barlow_twins, vicreg):
        value = loss(constant, torch.zeros(4, 3))
        value.backward()
        assert value.isfinite()
        assert constant.grad is not None
        assert constant.grad.isfinite().all()
        with pytest.raises(ValueError, match=r"\(B, P\), not \(4, 3\) and \(3, 4\)"):
            loss(torch.ones(4, 3), torch.ones(3, 4))
    assert barlow_twins(torch.ones(1, 3), torch.ones(1, 3)) == 3, "nothing varies, so nothing correlates"
    with pytest.raises(ValueError, match="a batch of 1 has no variance"):
        vicreg(torch.ones(1, 3), torch.ones(1, 3))


@pytest.mark.parametrize("shape", [(3, 9), (9, 3), (5, 5)], ids=str)
@pytest.mark.parametrize("own", [False, True])
def test_the_squares_of_products_and_their_gradients_are_the_same_from_the_smaller_matrices(
    shape: tuple[int, int], own: bool
) -> None:
    z0, z1 = waves(*shape, 0.3).requires_grad_(), waves(*shape, 1.7).requires_grad_()
    leaves = (z0,) if own else (z0, z1)
    found = redundancy._SquaredProducts.apply(z0, None if own else z1)
    expected = (z0.T @ (z0 if own else z1)).square().sum()
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    for ours, plain in zip(
        torch.autograd.grad(3 * found, leaves), torch.autograd.grad(3 * expected, leaves), strict=True
    ):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)
