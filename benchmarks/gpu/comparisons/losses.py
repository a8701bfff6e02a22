"""Checks of losses and of the memory bank: values and gradients on the device in float32, the CPU's in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from benchmarks.gpu.bench import CPU, Bench
from torch import Tensor

from manyview_server.learn import losses
from manyview_server.learn.modules.memory_bank import MemoryBank

TOLERANCE = 2e-4
WHY = "float32 beside float64; the sums of a batch lose 3 to 4 digits"
Inputs = dict[str, Tensor]
Loss = Callable[[Inputs], Tensor]

LOSSES: dict[str, Loss] = {
    "nt_xent": lambda x: losses.nt_xent(x["z0"], x["z1"], 0.2),
    "dcl": lambda x: losses.dcl(x["z0"], x["z1"], 0.1),
    "dclw": lambda x: losses.dcl(x["z0"], x["z1"], 0.1, weight_sigma=0.5),
    "info_nce": lambda x: losses.info_nce(x["z0"], x["z1"], x["bank"], x["filled"], 0.1),
    "info_nce with ids": lambda x: losses.info_nce(
        x["z0"], x["z1"], x["bank"], x["filled"], 0.1, image_ids=x["ids"], bank_image_ids=x["bank_ids"]
    ),
    "info_nce, low temperature": lambda x: losses.info_nce(x["z0"], x["z1"], x["bank"], x["filled"], 0.02),
    "nnclr": lambda x: losses.nnclr(losses.nearest_keys(x["z0"], x["bank"], x["filled"]).keys, x["z1"]),
    "negative_cosine": lambda x: losses.negative_cosine(x["z0"], x["z1"]),
    "barlow_twins": lambda x: losses.barlow_twins(x["z0"], x["z1"]),
    "vicreg": lambda x: losses.vicreg(x["z0"], x["z1"]),
    "dino": lambda x: losses.dino(x["views"], x["views"][:2].detach() * 0.5, x["center"]),
    "swav": lambda x: losses.swav(x["views"][:2], x["views"][2:]),
    "swav with a queue": lambda x: losses.swav(
        x["views"][:2], x["views"][2:], queue_scores=x["queue"], num_valid=x["queued"]
    ),
    "mae": lambda x: losses.mae(x["patches"], losses.normalized_patches(x["target"]), x["mask"]),
    "simmim": lambda x: losses.simmim(x["patches"], x["target"], x["mask"]),
}
NEEDS_GRADIENT = ("z0", "z1", "views", "patches")


def run(bench: Bench) -> None:
    """Check each loss, then the bank."""
    made = inputs(bench.size(256, 8), bench.size(4096, 64))
    for name, loss in LOSSES.items():
        expected, gradients = value_and_gradients(loss, made, CPU, torch.float64)
        found, ours = value_and_gradients(loss, made, bench.device, torch.float32)
        bench.close(name, found, expected, TOLERANCE, WHY)
        for given, gradient in gradients.items():
            bench.close(f"{name}: gradient of {given}", ours[given], gradient, 10 * TOLERANCE, WHY)
        with torch.autocast(bench.device.type, torch.bfloat16):
            again, _ = value_and_gradients(loss, made, bench.device, torch.float32)
        bench.close(f"{name}: under autocast", again, found, 1e-6, "losses switch autocast off")
    bank(bench)


def inputs(batch: int, slots: int, dim: int = 64) -> Inputs:
    """Return the arguments of the losses, in float64."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    z0 = normal(batch, dim)
    return {
        "z0": z0,
        "z1": z0 + 0.5 * normal(batch, dim),
        "bank": torch.nn.functional.normalize(normal(slots, dim), dim=1),
        "filled": torch.tensor(slots - 3),
        "ids": torch.arange(batch),
        "bank_ids": torch.arange(slots) % (2 * batch),
        "views": torch.nn.functional.normalize(normal(4, batch, dim), dim=2),
        "center": 0.01 * normal(dim),
        "queue": torch.nn.functional.normalize(normal(2, 32, dim), dim=2),
        "queued": torch.tensor(20),
        "patches": normal(batch, 9, 48),
        "target": normal(batch, 9, 48),
        "mask": torch.rand(batch, 9, generator=draw) < 0.6,
    }


def value_and_gradients(
    loss: Loss, made: Inputs, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of the inputs on a device, and the gradients with respect to them."""
    here = {name: (t.to(dtype) if t.is_floating_point() else t).to(device, copy=True) for name, t in made.items()}
    for name in NEEDS_GRADIENT:
        here[name].requires_grad_()
    value = loss(here)
    value.backward()
    return value.detach(), {name: g for name in NEEDS_GRADIENT if (g := here[name].grad) is not None}


def bank(bench: Bench) -> None:
    """Check the ring on both devices: it wraps around, refuses a batch, and keeps the last keys of too large a
    batch."""
    for dtype in (torch.float32, torch.bfloat16):
        draw = torch.Generator().manual_seed(1)
        banks = [MemoryBank(50, 8, dtype).to(device) for device in (CPU, bench.device)]
        for step, size in enumerate((20, 20, 20, 70)):
            keys = torch.nn.functional.normalize(torch.randn(size, 8, generator=draw), dim=1)
            for each in banks:
                here = each.keys.device
                accept = torch.full((), step != 1, device=here)
                each.enqueue(keys.to(here), torch.arange(size, device=here), accept)
        for name, expected in banks[0].state_dict().items():
            bench.same(f"bank of {dtype}: {name}", banks[1].state_dict()[name], expected)
