from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from manyview_server.learn.optimizers import AdamW, parameter_groups

YES, NO = torch.tensor(True), torch.tensor(False)


def a_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).double()


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.95)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_updates_are_those_of_torchs_own(betas: tuple[float, float], weight_decay: float) -> None:
    ours, theirs = a_network(), a_network()
    optimizer = AdamW(parameter_groups(ours, weight_decay), 0.01, betas)
    plain = torch.optim.AdamW(cast(Any, parameter_groups(theirs, weight_decay)), lr=0.01, betas=betas, foreach=False)
    for step in range(5):
        for network in (ours, theirs):
            generator = torch.Generator().manual_seed(step)
            for parameter in network.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if step == 3:
            optimizer.step(NO)  # torch's sees no such step
            continue
        optimizer.learning_rate = 0.01 / (step + 1)
        for group in plain.param_groups:
            group["lr"] = 0.01 / (step + 1)
        optimizer.step(YES)
        plain.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-6)
        assert optimizer.state[a]["step"] == 4


def test_the_first_step_by_hand() -> None:
    """The corrected means of one gradient are itself and its square, so that each weight moves by the learning rate."""
    weight = torch.tensor([[2.0, -4.0]], dtype=torch.float64, requires_grad=True)
    optimizer = AdamW([{"params": [weight], "weight_decay": 0.5, "decays": True}], 0.1)
    weight.grad = torch.tensor([[3.0, -0.01]], dtype=torch.float64)
    optimizer.step(YES)
    expected = torch.tensor([[2.0 * (1 - 0.1 * 0.5) - 0.1, -4.0 * (1 - 0.1 * 0.5) + 0.1]], dtype=torch.float64)
    torch.testing.assert_close(weight.detach(), expected, atol=1e-6, rtol=0)
