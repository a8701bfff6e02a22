"""Checks of views: parameters are drawn on the CPU for both sides, and the pixels are made on each device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.comparisons import pictures
from torch import Tensor

from manyview_server.learn.views import blur, color, crop, make_views, pixels, rotation
from manyview_server.learn.views.presets import PRESETS
from manyview_server.learn.views.recipe import ViewSettings

STD = 0.224
"""The approximate standard deviation of the normalization. A step of 1/255 is 1 / STD times as large in a view."""
ROUNDING = "float32, and sums in another order"
JUMPS = 2e-3
"""The share of values that may be far off: a hue near gray, a pixel at the threshold of a solarization, a nearest
pixel."""


def run(bench: Bench) -> None:
    """Check every recipe, then each kind of change by itself."""
    images = pictures.tensor(bench.size(16, 4), bench.size(448, 96))
    for name, settings in PRESETS.items():
        recipe(bench, name, settings, images)
    crops(bench, images)
    colors(bench, images)


def recipe(bench: Bench, name: str, settings: ViewSettings, images: Tensor) -> None:
    """Check the views of one recipe, against both ways of the CPU and in bfloat16."""
    ids, sizes = torch.arange(len(images)), torch.full((len(images), 2), images.shape[-1])
    views = partial(make_views, sizes=sizes, image_ids=ids, settings=settings, seed=1, epoch=2)
    views = partial(views, image_size=bench.size(224, 32))
    here = images.to(bench.device)
    found = views(here)
    with products_everywhere():
        compare(bench, f"{name}: same arithmetic", views(here), views(images), 1e-4, ROUNDING)
    compare(bench, f"{name}: CPU path", found, views(images), 6 / 255 / STD, "crops in bytes, stretched by the jitter")
    halves = views(here, dtype=torch.bfloat16, memory_format=torch.channels_last)
    compare(bench, f"{name}: bfloat16", halves, found, 2 / 255 / STD, "8 bits of mantissa below 4")


@contextmanager
def products_everywhere() -> Iterator[None]:
    """While the block runs, the CPU also crops large images by products of matrices, as a GPU does."""
    before, pixels.LARGEST_MATMUL_PX = pixels.LARGEST_MATMUL_PX, 1 << 30
    try:
        yield
    finally:
        pixels.LARGEST_MATMUL_PX = before


def compare(bench: Bench, name: str, found: list[Tensor], expected: list[Tensor], tolerance: float, why: str) -> None:
    """Check that all but JUMPS of the values are within `tolerance`."""
    for ours, theirs in zip(found, expected, strict=True):
        difference = (ours.float().cpu() - theirs.float().cpu()).abs()
        far = float((~(difference <= tolerance)).double().mean())
        detail = f"{far:.2g} of the values are more than {tolerance:.2g} apart, at most {JUMPS}: {why}"
        bench.check(f"{name}, {ours.shape[-1]} px", far <= JUMPS, detail)


def crops(bench: Bench, images: Tensor) -> None:
    """Check the products against torchvision's kernel for bytes, at several scales, mirrored or not."""
    side, size = images.shape[-1], bench.size(224, 32)
    boxes = [(0, 0, side, side), (3, 5, side // 2, side // 3), (side // 2, 1, side // 7, side // 5), (2, 2, 9, 9)]
    given = images[torch.arange(len(boxes)) % len(images)]
    box = torch.tensor(boxes)
    flip, upside_down = torch.tensor([False, True, False, True]), torch.tensor([False, False, True, True])
    for interpolation, steps in (("bilinear", 1), ("bicubic", 2)):
        kind: crop.Interpolation = "bicubic" if interpolation == "bicubic" else "bilinear"
        here = [each.to(bench.device) for each in (given, box, flip, upside_down)]
        found = crop.resize_by_matmul(here[0], here[1], here[2], here[3], size, kind).cpu()
        rows = list(range(len(boxes)))
        expected = crop.resize_one_by_one(given, rows, box.tolist(), flip, upside_down, size, kind)
        most = float((found - expected).abs().max()) * 255
        bench.check(f"crop, {interpolation}", most <= steps + 0.51, f"{most:.2f}/255 at most apart, {steps} allowed")


def colors(bench: Bench, images: Tensor) -> None:
    """Check jitter, blur, solarization and rotation of the same planes on both devices."""
    planes = (images[:8, :, :128, :128].transpose(0, 1).float() / 255).contiguous()  # (3, N, o, o)
    count = planes.shape[1]
    draw = torch.Generator().manual_seed(0)
    factors = torch.rand(count, 4, generator=draw) * 1.6
    factors[:, 3] = torch.rand(count, generator=draw) - 0.5
    order = torch.tensor([0, 2, 3, 1]).repeat(count, 1)
    sigma = torch.rand(count, generator=draw) * 2 + 0.1
    angle = torch.rand(count, generator=draw) * 60 - 30
    threshold = torch.full((count, 1, 1), 0.5)

    def changed(device: torch.device) -> dict[str, Tensor]:
        here = planes.to(device)
        jittered = here.clone()
        color.jitter_(jittered, color.Jitter.of(factors.to(device), order.to(device)), hue_at=2)
        return {
            "jitter": jittered,
            "gray": color.luma(here),
            "blur": blur.blur(here, sigma.to(device), float(sigma.max())),
            "solarize": color.solarize(here, threshold.to(device)),
            "rotation": rotation.rotate(here, angle.to(device)),
        }

    expected = changed(torch.device("cpu"))
    for name, found in changed(bench.device).items():
        compare(bench, name, [found], [expected[name]], 1e-4, ROUNDING)
