"""Figures of single operations: the bank's loss, updates and the teacher, augmentation; each beside a plain version."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.comparisons import pictures
from torch import Tensor, nn
from torch.nn import functional as F

from manyview_server.learn import backbones, optimizers
from manyview_server.learn.losses import info_nce
from manyview_server.learn.modules.ema import make_teacher, update_teacher
from manyview_server.learn.optimizers import Optimizer, OptimizerSettings
from manyview_server.learn.schedules import Moment
from manyview_server.learn.views import make_views
from manyview_server.learn.views.presets import PRESETS

TEMPERATURE = 0.1
WIDTH = 128


def bank(bench: Bench) -> None:
    """Row G10: time and peak memory of the loss over a bank with its gradient, beside logits that are all kept."""
    keys = F.normalize(torch.randn(bench.size(65_536, 512), WIDTH, device=bench.device), dim=1)
    for batch in (bench.size(256, 8), bench.size(1024, 16), bench.size(4096, 32)):
        bank_loss(bench, keys, batch)
        bench.release()


def bank_loss(bench: Bench, keys: Tensor, batch: int) -> None:
    """Compare both ways for one batch, then time them."""
    q, k = (
        torch.randn(batch, WIDTH, device=bench.device, requires_grad=True),
        torch.randn(batch, WIDTH).to(bench.device),
    )
    filled = torch.full((), len(keys), device=bench.device)
    ways: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: info_nce(q, k, keys, filled, TEMPERATURE),
        "all logits": lambda: all_logits(q, k, keys),
    }

    def with_gradient(name: str) -> Tensor:
        loss = ways[name]()
        (gradient,) = torch.autograd.grad(loss, q)
        return gradient

    bench.close(f"loss of {batch} beside all logits", ways["ours"](), ways["all logits"](), 1e-5, "the same formula")
    gradients = [with_gradient(name) for name in ways]
    bench.close(f"gradient of {batch} beside all logits", gradients[0], gradients[1], 1e-4, "the same formula")
    conditions = {"B": batch, "K": len(keys), "P": WIDTH, "peer": "none: all logits as the peer computes them"}
    for name in ways:
        call = partial(with_gradient, name)
        bench.figure("G10", f"bank loss and gradient, {name}", bench.median_ms(call), "ms", **conditions)
        peak = bench.peak_bytes(call)
        if peak is not None:
            bench.figure("G10", f"bank loss, peak memory, {name}", peak / 2**20, "MiB", **conditions)


def all_logits(query: Tensor, key: Tensor, bank_keys: Tensor) -> Tensor:
    """Return the loss of the plain version: a copy of the bank, all logits, cross-entropy."""
    q, k, negatives = F.normalize(query, dim=1), F.normalize(key, dim=1), bank_keys.clone().detach()
    positive = torch.einsum("nc,nc->n", q, k)[:, None]
    logits = torch.cat([positive, torch.einsum("nc,kc->nk", q, negatives)], dim=1) / TEMPERATURE
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.int64, device=q.device))


def updates(bench: Bench) -> None:
    """Row G11: how long an update and a move of the teacher keep host and device, beside a loop over parameters."""
    name = "resnet9" if bench.quick else "resnet50"
    network = backbones.build(name).to(bench.device).to(memory_format=torch.channels_last)
    plain = optimizers.build(OptimizerSettings(), network, 256)
    gradients = [torch.randn_like(parameter) for parameter in plain.parameters]
    accept = torch.ones((), dtype=torch.bool, device=bench.device)
    for kind in ("lars", "sgd", "adamw"):
        settings = OptimizerSettings(name=kind, learning_rate=1e-6)
        optimizer = optimizers.build(settings, network, 256)
        timed(bench, f"{kind} step", partial(update, optimizer, gradients, accept), name)
    momenta = [torch.zeros_like(parameter) for parameter in network.parameters()]
    timed(bench, "lars step, a loop over parameters", lambda: plain_lars(network, momenta), name)
    teacher = make_teacher(network)
    timed(bench, "teacher", lambda: update_teacher(teacher, network, 0.99, accept), name)
    timed(bench, "teacher, a loop over parameters", lambda: plain_teacher(teacher, network), name)


def update(optimizer: Optimizer, gradients: list[Tensor], accept: Tensor) -> None:
    """Take a step with gradients that have been computed before."""
    optimizer.begin_step(Moment(step=0, total_steps=10))
    for parameter, gradient in zip(optimizer.parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step(accept)


def timed(bench: Bench, what: str, call: Callable[[], object], network: str) -> None:
    """Record the host and device time of an update."""
    conditions = {"network": network, "peer": "none: the loop is what the peer does"}
    bench.figure("G11", f"{what}, host", bench.host_ms(call), "ms", **conditions)
    bench.figure("G11", f"{what}, device", bench.median_ms(call), "ms", **conditions)


@torch.no_grad()
def plain_lars(network: nn.Module, momenta: list[Tensor]) -> None:
    """Apply LARS parameter by parameter, with a branch on numbers of the device, as it is often written."""
    for parameter, momentum in zip(network.parameters(), momenta, strict=True):
        gradient = parameter.grad
        assert gradient is not None
        if parameter.ndim > 1:
            w, g = parameter.norm(), gradient.norm()
            if w != 0 and g != 0:
                gradient = (gradient + 1e-6 * parameter) * (1e-3 * w / (g + 1e-6 * w + 1e-8))
        momentum.mul_(0.9).add_(gradient)
        parameter.add_(momentum, alpha=-1e-6)


@torch.no_grad()
def plain_teacher(teacher: nn.Module, student: nn.Module) -> None:
    """Update the moving average parameter by parameter."""
    for ours, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
        ours.mul_(0.99).add_(theirs, alpha=0.01)


def augmentation(bench: Bench) -> None:
    """Row G12: views per second from cached images, by recipe and side of the cache; and what the card can do."""
    batch = bench.size(256, 4)
    for side in (bench.size(256, 48), bench.size(448, 64)):
        drawn = pictures.tensor(bench.size(32, 4), side)
        images = drawn.repeat(batch // len(drawn), 1, 1, 1).to(bench.device)
        for preset in ("simclr", "moco", "dino"):
            recipe(bench, preset, images)
        bench.release()
    ceilings(bench)


def recipe(bench: Bench, preset: str, images: Tensor) -> None:
    """Record the rate at which one recipe's views are made, and how long that keeps the host busy."""
    batch, side, size = len(images), images.shape[-1], bench.size(224, 32)
    settings = PRESETS[preset]
    made = partial(
        make_views,
        images,
        torch.full((batch, 2), side),
        torch.arange(batch),
        settings,
        image_size=size,
        seed=0,
        epoch=0,
        dtype=torch.bfloat16,
        memory_format=torch.channels_last,
    )
    conditions = {"B": batch, "from": f"{side} px", "to": f"{size} px", "peer": "none"}
    rate = settings.num_views * batch / bench.median_ms(made, repeats=10, warm_up=2) * 1e3
    bench.figure("G12", f"views of {preset}", rate, "views/s", **conditions)
    bench.figure("G12", f"views of {preset}, host", bench.host_ms(made, repeats=5), "ms per batch", **conditions)


def ceilings(bench: Bench) -> None:
    """Record the limits of the card: a copy within its memory, and a product in bfloat16 on random data."""
    source = torch.randint(0, 255, (bench.size(4 << 30, 1 << 16),), dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    milliseconds = bench.median_ms(lambda: target.copy_(source), repeats=10)
    bench.figure("context", "copy within the device", 2 * len(source) / milliseconds / 1e9, "TB/s", bytes=len(source))
    side = bench.size(8192, 64)
    a, b = (torch.randn(side, side, device=bench.device).bfloat16() for _ in range(2))
    milliseconds = bench.median_ms(lambda: a @ b, repeats=10)
    bench.figure("context", "product in bfloat16", 2 * side**3 / milliseconds / 1e9, "TFLOP/s", side=side)
    host = torch.randint(0, 255, (bench.size(38_535_168, 1 << 12),), dtype=torch.uint8)
    if bench.cuda:
        pinned, here = host.pin_memory(), torch.empty_like(host, device=bench.device)
        for name, given in (("pinned", pinned), ("pageable", host)):
            milliseconds = bench.median_ms(partial(here.copy_, given, non_blocking=True), repeats=10)
            bench.figure("context", f"copy to the device, {name}", len(host) / milliseconds / 1e6, "GB/s")
