"""The pretended device is as strict as a real one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from support.learning.pretend_device import DEVICE, OnDevice, pretending

WAITS: dict[str, Callable[[Tensor], object]] = {
    "a number is read": lambda x: x.sum().item(),
    "a condition is asked": lambda x: bool(x.sum() > 0),
    "rows are chosen by a mask": lambda x: x[x > 0],
    "places are looked for": lambda x: (x > 0).nonzero(),
    "it is copied to the host": lambda x: x.cpu(),
    "it is copied into a tensor of the host": lambda x: torch.empty(4).copy_(x),
    "numbers of the host are copied to it": lambda x: x.copy_(torch.ones(4)),
    "a tensor of the host is copied to it": lambda x: torch.ones(4).to(x.device),
    "a tensor is made of numbers of the host": lambda x: torch.tensor([1.0, 2.0], device=x.device),
}
FREE: dict[str, Callable[[Tensor], object]] = {
    "arithmetic": lambda x: (x * 2 + 1).relu().sum(),
    "a number of the host's in a choice": lambda x: torch.where(x > 0, x, 0.0),
    "a tensor that is made there": lambda x: torch.arange(4, device=x.device) + x,
    "rows by their places": lambda x: x[torch.arange(2, device=x.device)],
    "a copy that nobody waits for": lambda x: torch.empty(4, pin_memory=True).copy_(x, non_blocking=True),
    "a 0-d tensor of the host's as a number": lambda x: x * torch.tensor(2.0),
}
ERRORS: dict[str, Callable[[Tensor], object]] = {
    "tensors of both": lambda x: x + torch.ones(4),
    "a list of both": lambda x: torch.stack([x[0], torch.tensor(1.0)]),
    "pinning": lambda x: x.pin_memory(),
}


@pytest.mark.parametrize("name", WAITS)
def test_the_host_waits_where(name: str) -> None:
    with pretending() as device:
        x = torch.ones(4, device=DEVICE)
        assert device.waits == []
        WAITS[name](x)
        assert len(device.waits) == 1


@pytest.mark.parametrize("name", FREE)
def test_nobody_waits_for(name: str) -> None:
    with pretending() as device:
        FREE[name](torch.ones(4, device=DEVICE))
        assert device.waits == []


@pytest.mark.parametrize("name", ERRORS)
def test_it_is_an_error_as_on_a_gpu(name: str) -> None:
    with pretending(), pytest.raises(RuntimeError):
        ERRORS[name](torch.ones(4, device=DEVICE))


def test_numbers_and_gradients_are_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    x, layer = torch.randn(5, 3), torch.nn.Linear(3, 2)
    layer(x).square().mean().backward()
    assert layer.weight.grad is not None
    expected = layer.weight.grad.clone()
    with pretending():
        layer.to(DEVICE).zero_grad()
        layer(x.to(DEVICE)).square().mean().backward()
        assert isinstance(layer.weight.grad, OnDevice)
        assert layer.weight.grad.device == DEVICE
        assert torch.equal(layer.weight.grad.host, expected)
