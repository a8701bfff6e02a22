from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from manyview_server.learn import optimizers
from manyview_server.learn.optimizers import OptimizerSettings, Sgd, parameter_groups

YES, NO = torch.tensor(True), torch.tensor(False)


def a_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


def give_gradients(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_norms_and_biases_do_not_decay_and_frozen_parameters_are_left_out() -> None:
    network = nn.ModuleDict({"online": a_network(), "teacher": a_network().requires_grad_(False)})
    decaying, others = parameter_groups(network, 0.1)
    assert [tuple(parameter.shape) for parameter in decaying["params"]] == [(8, 4), (2, 8)]
    assert sorted(tuple(parameter.shape) for parameter in others["params"]) == [(2,), (8,), (8,), (8,)]
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_updates_are_those_of_torchs_own(momentum: float, weight_decay: float) -> None:
    ours, theirs = a_network(), a_network()
    optimizer = Sgd(parameter_groups(ours, weight_decay), 0.5, momentum)
    plain = torch.optim.SGD(parameter_groups(theirs, weight_decay), lr=0.5, momentum=momentum, foreach=False)
    for step in range(3):
        for network in (ours, theirs):
            give_gradients(network, step)
        optimizer.set_learning_rate(1 / (step + 1))
        for group in plain.param_groups:
            group["lr"] = 0.5 / (step + 1)
        optimizer.step(YES)
        plain.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("refused_step", [0, 1])
def test_a_refused_update_changes_neither_weights_nor_momentum(refused_step: int) -> None:
    network, reference = a_network(), a_network()
    optimizer, plain = (Sgd(parameter_groups(each, 0.01), 0.5, 0.9) for each in (network, reference))
    for step in range(3):
        if step == refused_step:
            for parameter in network.parameters():
                parameter.grad = torch.full_like(parameter, float("nan"))
            optimizer.step(NO)
            continue
        for each, its_optimizer in ((network, optimizer), (reference, plain)):
            give_gradients(each, step)
            its_optimizer.step(YES)
    for a, b in zip(optimizer.parameters, plain.parameters, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(optimizer.state[a]["momentum_buffer"], plain.state[b]["momentum_buffer"])


def test_momentum_is_there_before_the_first_step_in_the_layout_of_the_parameter() -> None:
    convolution = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = Sgd(parameter_groups(convolution, 0.0), 0.1, 0.9)
    buffer = optimizer.state[convolution.weight]["momentum_buffer"]
    assert buffer.stride() == convolution.weight.stride()
    assert (buffer == 0).all()
    assert not buffer.requires_grad


def test_without_momentum_nothing_is_kept() -> None:
    assert Sgd(parameter_groups(a_network(), 0.0), 0.1, 0.0).state == {}


def test_parameters_without_a_gradient_stay() -> None:
    network = a_network()
    optimizer = Sgd(parameter_groups(network, 0.1), 0.5, 0.9)
    give_gradients(network, 0)
    optimizer.zero_grad()
    before = [parameter.clone() for parameter in network.parameters()]
    optimizer.step(YES)
    assert all(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))


def test_the_learning_rate_grows_with_the_batch_unless_it_is_given() -> None:
    network = a_network()
    by_default = [optimizers.build(OptimizerSettings(), network, size).peak_learning_rate for size in (64, 256)]
    assert by_default[1] == 4 * by_default[0]
    given = optimizers.build(OptimizerSettings(learning_rate=0.7, momentum=0.5, weight_decay=0.2), network, 64)
    assert (given.peak_learning_rate, given.momentum) == (0.7, 0.5)
    assert given.param_groups[0]["weight_decay"] == 0.2
    given.set_learning_rate(0.5)
    assert given.learning_rate == 0.35


def test_building_one_does_not_import_the_compiler() -> None:
    code = """
import sys, torch
from manyview_server.learn.optimizers import Sgd
optimizer = Sgd([{"params": [torch.ones(2, requires_grad=True)], "weight_decay": 0.0}], 0.1, 0.9)
optimizer.parameters[0].sum().backward()
optimizer.step(torch.tensor(True))
optimizer.zero_grad()
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=50).returncode == 0
