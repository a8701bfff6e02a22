from __future__ import annotations

import math

import pytest
import torch

from manyview_server.learn.losses import koleo
from support.learning.golden import value_and_gradient_norm, waves


def test_koleo_has_the_reference_value_and_gradient() -> None:
    value, gradient_norm = value_and_gradient_norm(koleo, waves(8, 16, 0.1))
    assert value == pytest.approx(1.02367698, abs=1e-6)
    assert gradient_norm == pytest.approx(0.42418804, abs=1e-6)


def test_koleo_by_hand() -> None:
    opposite = torch.tensor([[3.0, 0.0], [-0.5, 0.0]])
    assert koleo(opposite).item() == pytest.approx(-math.log(2), abs=1e-6)
    square = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    assert koleo(square).item() == pytest.approx(-math.log(math.sqrt(2)), abs=1e-6)


def test_the_order_of_rows_and_their_lengths_do_not_matter() -> None:
    z = waves(8, 16, 0.1)
    longer = z * torch.arange(1, 9, dtype=torch.float64)[:, None]
    assert koleo(longer.flip(0)).item() == pytest.approx(koleo(z).item(), abs=1e-9)


@pytest.mark.parametrize("z", [torch.ones(1, 4), torch.ones(3, 4), torch.zeros(3, 4), torch.zeros(1, 4)])
def test_degenerate_batches_are_finite(z: torch.Tensor) -> None:
    z = z.clone().requires_grad_()
    value = koleo(z)
    (gradient,) = torch.autograd.grad(value, z)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert len(z) > 1 or value == 0


def test_it_computes_in_float32_inside_autocast_and_shapes_are_checked() -> None:
    half = waves(8, 16, 0.1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = koleo(half)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(koleo(half.double()).item(), rel=1e-5)
    with pytest.raises(ValueError, match=r"projections must be \(B, P\), not \(4,\)"):
        koleo(torch.ones(4))
