"""Checks of optimizers and of the teacher: the same gradients on both devices, with refused steps among them."""

from __future__ import annotations

import torch
from benchmarks.gpu.bench import CPU, Bench
from torch import Tensor, nn

from manyview_server.learn import optimizers
from manyview_server.learn.modules.ema import make_teacher, update_teacher
from manyview_server.learn.optimizers import Optimizer, OptimizerSettings
from manyview_server.learn.schedules import Moment

STEPS = 6
REFUSED = 3
WHY = "float32, and one rounding more or less in a fused kernel"


def run(bench: Bench) -> None:
    """Check SGD, AdamW and LARS, with clipping and without."""
    for name in ("sgd", "adamw", "lars"):
        for clip in (None, 0.5):
            settings = OptimizerSettings(name=name, clip_gradient_norm=clip, weight_decay=0.01, learning_rate=0.1)
            expected, found = (trained(settings, device) for device in (CPU, bench.device))
            for key, value in expected.items():
                label = f"{name}{', clipped' if clip else ''}: {key}"
                if key.startswith("refused"):
                    bench.check(label, bool(found[key]) and bool(value), "nothing changes, bit for bit")
                else:
                    bench.close(label, found[key], value, 1e-5, WHY)
    teacher(bench)


def network() -> nn.Sequential:
    """Return a network with convolutions of both layouts, a norm and biases."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1, bias=False), nn.Linear(4, 5))
    return made.to(memory_format=torch.channels_last)


def trained(settings: OptimizerSettings, device: torch.device) -> dict[str, Tensor]:
    """Return weights and state after some steps, and whether the refused step changed nothing."""
    module = network().to(device)
    optimizer = optimizers.build(settings, module, 128)
    draw = torch.Generator().manual_seed(2)
    found: dict[str, Tensor] = {}
    for step in range(STEPS):
        optimizer.begin_step(Moment(step=step, total_steps=STEPS))
        for parameter in module.parameters():
            gradient = torch.randn(parameter.shape, generator=draw).to(device)
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        norm = nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
        before = everything(module, optimizer)
        optimizer.step(torch.full((), step != REFUSED, device=device), norm)
        if step == REFUSED:
            after = everything(module, optimizer)
            found["refused step"] = torch.tensor(all(torch.equal(after[key], old) for key, old in before.items()))
    return found | everything(module, optimizer)


def everything(module: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return a copy of weights and optimizer state by name."""
    found = {f"weight {name}": p.detach().clone() for name, p in module.named_parameters()}
    for number, parameter in enumerate(optimizer.parameters):
        for name, tensor in optimizer.state.get(parameter, {}).items():
            found[f"{name} {number}"] = tensor.clone()
    return found


def teacher(bench: Bench) -> None:
    """Check the moving average against a plain loop, with accepted and refused steps."""
    student = network().to(bench.device)
    follower = make_teacher(student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    expected = [
        0.9 * ours + 0.1 * theirs for ours, theirs in zip(follower.parameters(), student.parameters(), strict=True)
    ]
    update_teacher(follower, student, 0.9, torch.ones((), dtype=torch.bool, device=bench.device))
    for number, (ours, theirs) in enumerate(zip(follower.parameters(), expected, strict=True)):
        bench.close(f"teacher: parameter {number}", ours, theirs, 1e-6, "float32")
    before = [parameter.clone() for parameter in follower.parameters()]
    update_teacher(follower, student, 0.9, torch.zeros((), dtype=torch.bool, device=bench.device))
    for number, (ours, theirs) in enumerate(zip(follower.parameters(), before, strict=True)):
        bench.same(f"teacher: refused, parameter {number}", ours, theirs)
