from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from manyview_server.learn.optimizers import AdamW, Lars, Optimizer, Schedule, Sgd, parameter_groups
from manyview_server.learn.schedules import Moment
from support.learning import forked
from support.service.waiting import Waits

YES, NO = torch.tensor(True), torch.tensor(False)

MAKERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": lambda network, **options: Sgd(parameter_groups(network, 0.01), 0.5, 0.9, **options),
    "adamw": lambda network, **options: AdamW(parameter_groups(network, 0.01), 0.5, **options),
    "lars": lambda network, **options: Lars(parameter_groups(network, 0.01), 0.5, 0.9, **options),
}
every_optimizer = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def a_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2)).to(
        memory_format=torch.channels_last
    )


def give_gradients(network: nn.Module, seed: int, scale: float = 1.0) -> torch.Tensor:
    """Random ones; gives their length."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        gradient = scale * torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.empty_like(parameter).copy_(gradient)
    return torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])


def everything(optimizer: Optimizer) -> list[torch.Tensor]:
    state = [tensor for parameter in optimizer.parameters for tensor in optimizer.state[parameter].values()]
    return [tensor.detach().clone() for tensor in optimizer.parameters + state]


@every_optimizer
@pytest.mark.parametrize("refused_step", [0, 1])
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_a_refused_update_changes_neither_weights_nor_state(
    make: Any, refused_step: int, clip_norm: float | None
) -> None:
    one, other = a_network(), a_network()
    ours, theirs = make(one, clip_norm=clip_norm), make(other, clip_norm=clip_norm)
    for step in range(3):
        if step == refused_step:
            before = everything(ours)
            norm = give_gradients(one, step, float("nan"))
            ours.step(NO, norm)
            assert all(map(torch.equal, before, everything(ours)))
            continue
        for network, optimizer in ((one, ours), (other, theirs)):
            optimizer.step(YES, give_gradients(network, step))
    assert all(map(torch.equal, everything(ours), everything(theirs)))
    assert not torch.equal(one[0].weight, a_network()[0].weight)


@every_optimizer
def test_a_step_never_waits_for_the_device(make: Any) -> None:
    network = a_network()
    optimizer = make(network, clip_norm=0.5)
    norm = give_gradients(network, 0)
    with Waits() as watch:
        optimizer.step(YES, norm)
    assert watch.found == []


@every_optimizer
def test_state_is_there_before_the_first_step_in_the_layout_of_the_parameter(make: Any) -> None:
    network = a_network()
    optimizer = make(network)
    for parameter in network.parameters():
        for name, tensor in optimizer.state[parameter].items():
            assert not tensor.any()
            assert not tensor.requires_grad
            assert name == "step" or tensor.stride() == parameter.stride()


@every_optimizer
def test_parameters_without_a_gradient_rest_and_do_not_age(make: Any) -> None:
    network = a_network()
    optimizer = make(network)
    optimizer.step(YES, give_gradients(network, 0))
    give_gradients(network, 1)
    network[0].weight.grad = None
    before, state = network[0].weight.clone(), [t.clone() for t in optimizer.state[network[0].weight].values()]
    other = network[3].weight.clone()
    optimizer.step(YES)
    assert torch.equal(network[0].weight, before)
    assert all(map(torch.equal, state, optimizer.state[network[0].weight].values()))
    assert not torch.equal(network[3].weight, other)


@every_optimizer
def test_a_long_gradient_is_shortened_to_the_clip_norm_and_a_short_one_is_left_alone(make: Any) -> None:
    clipped, reference = a_network(), a_network()
    ours, plain = make(clipped, clip_norm=0.5), make(reference)
    for step, scale in enumerate((3.0, 0.01, 7.0)):
        norm = give_gradients(clipped, step, scale)
        give_gradients(reference, step, scale)
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
        assert (norm > 0.5) == (scale > 1)
        ours.step(YES, norm)
        plain.step(YES)
    for a, b in zip(clipped.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@every_optimizer
def test_where_nothing_is_longer_than_the_clip_norm_not_a_bit_changes(make: Any) -> None:
    clipped, reference = a_network(), a_network()
    ours, plain = make(clipped, clip_norm=1e6), make(reference)
    for step in range(3):
        ours.step(YES, give_gradients(clipped, step))
        plain.step(YES, give_gradients(reference, step))
    assert all(map(torch.equal, everything(ours), everything(plain)))


@every_optimizer
def test_a_step_begins_with_its_rates_and_without_gradients(make: Any) -> None:
    network = a_network()
    schedule = Schedule(warmup_epochs=2, end_factor=0.1, weight_decay=(0.04, 0.4))
    optimizer = make(network, schedule=schedule)
    give_gradients(network, 0)
    seen = []
    for step in range(6):
        optimizer.begin_step(Moment(step=step, total_steps=6, steps_per_epoch=1))
        seen.append((optimizer.learning_rate, optimizer.param_groups[0]["weight_decay"]))
        assert optimizer.param_groups[1]["weight_decay"] == 0
        assert all(parameter.grad is None for parameter in network.parameters())
    rates, decays = zip(*seen, strict=True)
    assert rates == pytest.approx([0.25, 0.5, 0.5, 0.3875, 0.1625, 0.05])
    assert (decays[0], decays[-1]) == pytest.approx((0.04, 0.4))
    assert list(decays) == sorted(decays)


def test_a_schedule_counts_its_warm_up_in_epochs_and_reaches_the_peak_at_the_last_step_at_the_latest() -> None:
    schedule = Schedule(warmup_epochs=1.5)
    factors = [schedule.learning_rate_factor(Moment(step=s, total_steps=20, steps_per_epoch=4)) for s in range(20)]
    assert factors[:7] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1])
    assert factors[-1] == 0
    short = [schedule.learning_rate_factor(Moment(step=s, total_steps=4, steps_per_epoch=4)) for s in range(4)]
    assert short == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1])
    for single in (schedule, Schedule()):
        assert single.learning_rate_factor(Moment(step=0, total_steps=1, steps_per_epoch=4)) == 1
    assert Schedule().weight_decay_at(Moment(step=3, total_steps=4)) is None


def test_building_one_does_not_import_the_compiler() -> None:
    code = """
import sys, torch
from manyview_server.learn.optimizers import AdamW, Lars, Sgd
for make in (Sgd, Lars):
    optimizer = make([{"params": [torch.ones(2, requires_grad=True)], "weight_decay": 0.1, "decays": True}], 0.1, 0.9)
    optimizer.parameters[0].sum().backward()
    optimizer.step(torch.tensor(True))
optimizer = AdamW([{"params": [torch.ones(2, requires_grad=True)], "weight_decay": 0.1, "decays": True}], 0.1)
optimizer.parameters[0].sum().backward()
optimizer.step(torch.tensor(True))
sys.exit("torch._dynamo" in sys.modules)
"""
    done = forked.run(code)
    assert done.returncode == 0, done.stderr


@every_optimizer
def test_no_gradient_of_a_network_in_channels_last_is_copied(make: Any) -> None:
    network = a_network()
    optimizer = make(network)
    give_gradients(network, 0)
    assert not network[0].weight.is_contiguous()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        optimizer.step(YES)
    names = [event.key for event in profiled.key_averages()]
    assert any("fused" in name for name in names)
    assert "aten::clone" not in names


@every_optimizer
def test_weights_in_channels_last_are_updated_as_contiguous_ones(make: Any) -> None:
    networks = [a_network(), a_network().to(memory_format=torch.contiguous_format)]
    for network in networks:
        optimizer = make(network)
        for step in range(3):
            give_gradients(network, step)
            optimizer.step(YES)
    for a, b in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(a, b)
