from __future__ import annotations

import pytest
import torch
from torch import Tensor

from manyview_server.learn.losses import soft_targets
from manyview_server.learn.losses.soft_targets import swapped_cross_entropy
from support.learning.agreement import normal


def pair_by_pair(views: Tensor, targets: list[Tensor], temperature: float) -> Tensor:
    log_q = (views / temperature).log_softmax(-1)
    terms = [
        -(target * log_q[v]).sum(1).mean() for t, target in enumerate(targets) for v in range(len(views)) if v != t
    ]
    return torch.stack(terms).sum()


@pytest.mark.parametrize("block", [1, 30, 10_000])
@pytest.mark.parametrize(("num_first", "num_more", "num_targets"), [(2, 0, 2), (2, 3, 2), (1, 2, 1), (3, 1, 2)])
@pytest.mark.parametrize("temperature", [0.01, 0.3])
def test_the_blocks_add_up_to_the_sum_over_the_pairs_and_so_do_their_gradients(
    num_first: int, num_more: int, num_targets: int, block: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soft_targets, "BLOCK_VALUES", block)
    first, more = normal(num_first, 7, 9, seed=0).requires_grad_(), normal(num_more, 7, 9, seed=1).requires_grad_()
    targets = [normal(7, 9, seed=10 + t).softmax(1) for t in range(num_targets)]
    leaves = [first, more] if num_more else [first]
    found = swapped_cross_entropy(leaves, targets, temperature)
    expected = pair_by_pair(torch.cat(leaves), targets, temperature)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    for ours, plain in zip(
        torch.autograd.grad(3 * found, leaves), torch.autograd.grad(3 * expected, leaves), strict=True
    ):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)


def test_outputs_in_bfloat16_are_summed_in_float32_and_get_gradients_in_bfloat16() -> None:
    views = normal(3, 8, 50, seed=0).bfloat16().requires_grad_()
    targets = [normal(8, 50, seed=t).softmax(1).float() for t in range(2)]
    loss = swapped_cross_entropy([views], targets, 0.1)
    loss.backward()
    exact = views.detach().double().requires_grad_()
    expected = pair_by_pair(exact, [target.double() for target in targets], 0.1)
    expected.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert views.grad is not None
    assert exact.grad is not None
    assert views.grad.dtype == torch.bfloat16
    torch.testing.assert_close(views.grad, exact.grad.bfloat16(), rtol=1e-2, atol=1e-4)
