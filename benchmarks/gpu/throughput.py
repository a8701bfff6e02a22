"""Figures of training: whole steps from a cache on the device, beside the same steps on views that were made
beforehand."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.comparisons import pictures
from torch import Tensor

from manyview_server.learn import optimizers
from manyview_server.learn.methods import Moment, build_method, resolve
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.step import Precision, train_step
from manyview_server.learn.views import make_views
from manyview_server.learn.views.presets import PRESETS

WARM_UP_STEPS = 8
WINDOWS, WINDOW_STEPS = 5, 8
CACHED = 1024


def training(bench: Bench) -> None:
    """SimCLR and MoCo from a cache at 256 px, and at 32 px; rows G4, G5, G8 and G9."""
    large, small = bench.size(224, 32), bench.size(32, 16)
    batch = bench.size(256, 4)
    fifty, eighteen = ("resnet9", "resnet9") if bench.quick else ("resnet50", "resnet18")
    simclr: dict[str, Any] = {"views": PRESETS["simclr"], "batch_size": batch}
    bank = {"memory_bank_size": bench.size(65_536, 64), "views": PRESETS["moco"], "batch_size": batch}
    ratio = measured(bench, "G5", made("simclr", eighteen, large, **simclr), bench.size(256, 48))
    bench.figure("G4", "share of the bound without views, R18", ratio, "", B=batch, source="cache on the device")
    ratio = measured(bench, "G4", made("simclr", fifty, large, **simclr), bench.size(256, 48))
    bench.figure("G4", "share of the bound without views, RN50", ratio, "", B=batch, source="cache on the device")
    measured(bench, "G8", made("moco", fifty, large, **bank), bench.size(256, 48))
    small_views = PRESETS["simclr_small"]
    measured(bench, "G9", made("simclr", eighteen, small, views=small_views, batch_size=batch), small)


def multi_crop(bench: Bench) -> None:
    """Measure DINO with small views beside the whole ones; rows G6 and G7."""
    large, batch = bench.size(224, 32), bench.size(128, 4)
    six = PRESETS["dino"]
    *whole, local = six.pipelines
    eight = dataclasses.replace(six, pipelines=(*whole, dataclasses.replace(local, count=8)))
    fifty = "resnet9" if bench.quick else "resnet50"
    measured(bench, "G6", made("dino", fifty, large, views=six, batch_size=batch), bench.size(256, 48))
    adamw = optimizers.OptimizerSettings(name="adamw")
    vit = made("dino", "vit_small", large, views=eight, batch_size=batch, optimizer=adamw)
    if bench.quick:
        vit = dataclasses.replace(vit, backbone_width=0.17)
    measured(bench, "G7", vit, bench.size(256, 48))


def made(method: str, backbone: str, image_size: int, **fields: Any) -> TrainSettings:
    """Return the settings of a job in bfloat16; `fields` are settings and not JSON values."""
    plain: dict[str, Any] = {name: fields.pop(name) for name in ("batch_size", "memory_bank_size") if name in fields}
    settings = resolve(method, {"backbone": backbone, "image_size": image_size, **plain})
    return dataclasses.replace(settings, **fields)


class Loop:
    """A job's loop from images on the device to the end of a step, without the trainer around it."""

    def __init__(self, bench: Bench, settings: TrainSettings, side: int) -> None:
        """`side`: the side of the cached images in pixels."""
        assert settings.batch_size is not None
        self.settings, self.batch = settings, settings.batch_size
        self.precision: Precision = "bfloat16" if bench.cuda else "float32"
        self._device = bench.device
        drawn = pictures.tensor(bench.size(64, 8), side)
        self._cache = drawn.repeat(bench.size(CACHED, 8) // len(drawn), 1, 1, 1).to(bench.device)
        self._method = build_method(settings, 50_000).to(bench.device).to(memory_format=torch.channels_last)
        self._optimizer = optimizers.build(settings.optimizer, self._method, self.batch)
        self._sizes, self._ids = torch.full((self.batch, 2), side), torch.arange(self.batch)
        self._ids_here = self._ids.to(bench.device)

    def views(self, number: int) -> list[Tensor]:
        """Return the views of step `number`."""
        rows = (self._ids + number * self.batch) % len(self._cache)
        return make_views(
            self._cache.index_select(0, rows.to(self._device, non_blocking=True)),
            self._sizes,
            rows,
            self.settings.views,
            image_size=self.settings.image_size,
            seed=0,
            epoch=number,
            dtype=torch.bfloat16 if self.precision == "bfloat16" else torch.float32,
            memory_format=torch.channels_last,
        )

    def step(self, number: int, views: list[Tensor]) -> None:
        """Run forward, backward and update."""
        moment = Moment(step=number, total_steps=10**6)
        train_step(self._method, self._optimizer, views, self._ids_here, moment, precision=self.precision)

    def whole(self, number: int) -> None:
        """Run a step and make its views."""
        self.step(number, self.views(number))


def measured(bench: Bench, row: str, settings: TrainSettings, side: int) -> float:
    """Record images per second with and without making views, host time and peak memory. Returns the ratio of the
    rates."""
    bench.release()  # memory that the previous part held
    loop = Loop(bench, settings, side)
    if bench.cuda:
        torch.cuda.reset_peak_memory_stats(bench.device)
    whole, host_ms = windows(bench, loop.whole)
    peak = torch.cuda.max_memory_allocated(bench.device) / 2**30 if bench.cuda else 0.0
    fixed = loop.views(0)
    bound, _ = windows(bench, lambda number: loop.step(number, fixed))
    conditions = {
        "B": loop.batch,
        "px": settings.image_size,
        "precision": loop.precision,
        "warm-up": bench.size(WARM_UP_STEPS, 1),
        "steps": f"median of {bench.size(WINDOWS, 1)} windows of {bench.size(WINDOW_STEPS, 1)}",
        "peer": "none",
    }
    name = f"{settings.method} {settings.backbone}"
    bench.figure(row, f"{name}, from the cache", loop.batch / whole, "images/s", **conditions)
    bench.figure(row, f"{name}, views made before", loop.batch / bound, "images/s", **conditions)
    bench.figure(row, f"{name}, host", host_ms, "ms per step", **conditions)
    if bench.cuda:
        bench.figure(row, f"{name}, peak memory", peak, "GiB", **conditions)
    return bound / whole


def windows(bench: Bench, step: Callable[[int], None]) -> tuple[float, float]:
    """Return the median seconds of a step, over windows of steps that end when the device has finished them, and the
    median milliseconds for which a step kept the host busy."""
    number, warm_up = 0, bench.size(WARM_UP_STEPS, 1)
    for number in range(warm_up):
        step(number)
    seconds, host = [], []
    for _ in range(bench.size(WINDOWS, 1)):
        bench.wait()
        began = time.perf_counter()
        for _ in range(bench.size(WINDOW_STEPS, 1)):
            number += 1
            asked = time.perf_counter()
            step(number)
            host.append((time.perf_counter() - asked) * 1e3)
        bench.wait()
        seconds.append((time.perf_counter() - began) / bench.size(WINDOW_STEPS, 1))
    return statistics.median(seconds), statistics.median(host)
