from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from manyview_server.learn.optimizers import Sgd, parameter_groups

YES = torch.tensor(True)


def a_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_updates_are_those_of_torchs_own(momentum: float, weight_decay: float) -> None:
    ours, theirs = a_network(), a_network()
    optimizer = Sgd(parameter_groups(ours, weight_decay), 0.5, momentum)
    plain = torch.optim.SGD(cast(Any, parameter_groups(theirs, weight_decay)), lr=0.5, momentum=momentum, foreach=False)
    for step in range(3):
        for network in (ours, theirs):
            generator = torch.Generator().manual_seed(step)
            for parameter in network.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.learning_rate = 0.5 / (step + 1)
        for group in plain.param_groups:
            group["lr"] = 0.5 / (step + 1)
        optimizer.step(YES)
        plain.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_without_momentum_nothing_is_kept() -> None:
    assert Sgd(parameter_groups(a_network(), 0.0), 0.1, 0.0).state == {}
