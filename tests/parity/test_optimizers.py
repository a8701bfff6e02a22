from __future__ import annotations

import copy

import pytest
import torch
from lightly.models.utils import update_momentum
from lightly.utils.lars import LARS
from lightly.utils.scheduler import cosine_schedule, cosine_warmup_schedule
from torch import nn

from manyview_server.learn.modules.ema import make_teacher, update_teacher
from manyview_server.learn.optimizers import Lars, parameter_groups
from manyview_server.learn.schedules import cosine, warmup_cosine
from support.learning.agreement import normal


def a_network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    ).double()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [1e-6, 0.1])
def test_lars_over_ten_steps_of_a_network(weight_decay: float, momentum: float, seed: int) -> None:
    ours = a_network(seed)
    theirs = copy.deepcopy(ours)
    optimizer = Lars(parameter_groups(ours, weight_decay), 0.3, momentum)
    reference = LARS(parameter_groups(theirs, weight_decay), lr=0.3, momentum=momentum)
    for step in range(10):
        images = normal(8, 3, 6, 6, seed=100 * seed + step)
        for network in (ours, theirs):
            network.zero_grad()
            network(images).pow(2).sum().backward()
        optimizer.step(torch.tensor(True))
        reference.step()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_teacher_over_twenty_steps(dtype: torch.dtype, seed: int) -> None:
    student = a_network(seed).to(dtype)
    ours, gated, theirs = make_teacher(student), make_teacher(student), make_teacher(student)
    for step in range(20):
        with torch.no_grad():
            for index, parameter in enumerate(student.parameters()):
                parameter.add_(normal(*parameter.shape, seed=1000 * seed + 50 * step + index, dtype=dtype))
        momentum = cosine(step, 20, 0.9, 1.0)
        update_teacher(ours, student, momentum)
        update_teacher(gated, student, momentum, torch.tensor(True))
        update_momentum(student, theirs, momentum)
    tolerance = 1e-6 if dtype == torch.float64 else 1e-5
    for a, b, c in zip(ours.parameters(), gated.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, c, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(b, c, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize(("start", "end"), [(0.996, 1.0), (0.04, 0.4), (1.0, 0.0)])
def test_cosines(num_steps: int, start: float, end: float) -> None:
    for step in range(num_steps + 1):
        assert cosine(step, num_steps, start, end) == pytest.approx(
            cosine_schedule(step, num_steps, start, end), abs=1e-12
        )


@pytest.mark.parametrize(("num_steps", "warmup_steps"), [(2, 1), (20, 5), (1000, 100), (50, 0), (7, 7)])
@pytest.mark.parametrize("end", [0.0, 0.001, 1.0])
def test_cosines_with_a_warm_up(num_steps: int, warmup_steps: int, end: float) -> None:
    for step in range(num_steps):
        expected = cosine_warmup_schedule(step, num_steps, 1.0, end, warmup_steps, 0.0)
        assert warmup_cosine(step, num_steps, warmup_steps, end) == pytest.approx(expected, abs=1e-12)
