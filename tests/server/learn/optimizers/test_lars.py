from __future__ import annotations

import pytest
import torch
from torch import Tensor

from manyview_server.learn.optimizers import Lars, ParameterGroup
from support.learning.golden import waves

YES = torch.tensor(True)


def group(*params: Tensor, weight_decay: float, decays: bool = True) -> ParameterGroup:
    return {"params": list(params), "weight_decay": weight_decay, "decays": decays}


def test_the_trace_is_the_references() -> None:
    p = waves(3, 4, 0.5).requires_grad_()
    optimizer = Lars([group(p, weight_decay=1e-4)], 0.3, 0.9)
    for expected in (2.4664175843, 2.4621811736, 2.4561391543):
        p.grad = None
        p.pow(3).sum().backward()
        optimizer.step(YES)
        assert p.sum().item() == pytest.approx(expected, abs=1e-9)


def test_the_update_by_hand() -> None:
    """|w| = 5, |g| = 2, no decay: the gradient is scaled to 0.1 x 5 / 2 of itself."""
    w = torch.tensor([[3.0, 4.0]], requires_grad=True)
    w.grad = torch.tensor([[0.0, 2.0]])
    Lars([group(w, weight_decay=0.0)], 0.5, 0.0, trust_coefficient=0.1).step(YES)
    torch.testing.assert_close(w.detach(), torch.tensor([[3.0, 4.0 - 0.5 * 0.1 * 5]]))
    w = torch.tensor([[3.0, 4.0]], requires_grad=True)
    w.grad = torch.tensor([[0.0, 2.0]])
    Lars([group(w, weight_decay=0.6)], 1.0, 0.0, trust_coefficient=0.1).step(YES)
    ratio = 0.1 * 5 / (2 + 0.6 * 5)
    expected = torch.tensor([[3 - ratio * 0.6 * 3, 4 - ratio * (2 + 0.6 * 4)]])
    torch.testing.assert_close(w.detach(), expected)


def test_tensors_of_zeros_are_updated_as_by_sgd() -> None:
    zeros, still = torch.zeros(2, 2, requires_grad=True), torch.ones(2, 2, requires_grad=True)
    zeros.grad, still.grad = torch.ones(2, 2), torch.zeros(2, 2)
    Lars([group(zeros, still, weight_decay=0.1)], 0.5, 0.9).step(YES)
    assert torch.equal(zeros.detach(), torch.full((2, 2), -0.5))
    assert torch.equal(still.detach(), torch.ones(2, 2))


def test_norms_and_biases_are_neither_scaled_nor_decayed() -> None:
    bias = torch.full((3,), 2.0, requires_grad=True)
    bias.grad = torch.ones(3)
    Lars([group(bias, weight_decay=0.0, decays=False)], 0.5, 0.9).step(YES)
    assert torch.equal(bias.detach(), torch.full((3,), 1.5))


def test_a_gradient_as_long_again_makes_the_same_update() -> None:
    one, other = (waves(4, 5, 0.2).requires_grad_() for _ in range(2))
    for weight, factor in ((one, 1.0), (other, 1000.0)):
        weight.grad = factor * waves(4, 5, 1.1)
        Lars([group(weight, weight_decay=0.0)], 0.5, 0.9).step(YES)
    torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-7)
