from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from manyview_server.learn.losses import negative_cosine
from support.learning.golden import waves


def test_negative_cosine_has_the_reference_value() -> None:
    a, b = waves(8, 16, 0.1).requires_grad_(), waves(8, 16, 1.3)
    value = negative_cosine(a, b)
    value.backward()
    assert a.grad is not None
    assert value.item() == pytest.approx(-0.36067968, abs=1e-6)
    assert a.grad.norm().item() == pytest.approx(0.11690643, abs=1e-6)


def test_negative_cosine_by_hand_and_as_byol_writes_it() -> None:
    p = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    z = torch.tensor([[1.0, 0.0], [0.0, -5.0]])
    assert negative_cosine(p, p).item() == pytest.approx(-1)
    assert negative_cosine(p, z).item() == pytest.approx(0)
    squared = (F.normalize(p, dim=1) - F.normalize(z, dim=1)).square().sum(1).mean()
    assert squared.item() == pytest.approx(2 + 2 * negative_cosine(p, z).item())


def test_rows_of_zeros_are_orthogonal_to_everything_and_shapes_are_checked() -> None:
    zeros = torch.zeros(2, 3, requires_grad=True)
    value = negative_cosine(zeros, torch.ones(2, 3))
    value.backward()
    assert value == 0
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3,\)"):
        negative_cosine(torch.ones(2, 3), torch.ones(3))
    assert negative_cosine(torch.ones(2, 3).bfloat16(), torch.ones(2, 3).bfloat16()).dtype == torch.float32
