"""The number format and memory layout that a job computes in: measured once, at the job's first start.

The choice is part of the checkpoint, because another one would round differently.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from manyview_server.learn import optimizers
from manyview_server.learn.methods import Method, Moment, Views, build_method
from manyview_server.learn.optimizers import Optimizer
from manyview_server.learn.out_of_memory import is_out_of_memory
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.step import Precision, train_step

CPU_TRIAL_IMAGES = 8
CUDA_TRIAL_IMAGES = 128
TRIAL_STEPS = 2
CLEAR_GAIN = 1.1
"""A later candidate must be this many times as fast as the best before it, because timings are noisy."""

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """The number format and memory layout of a job."""

    precision: Precision
    channels_last: bool
    float32_products: str = "ieee"
    """A GPU computes products of float32 in float32, never in TF32 (see `exact_float32`). Checkpoints record this
    because their numbers depend on it."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of the views. Weights stay float32 under autocast."""
        return DTYPES[self.precision]

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of weights and views."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, for the checkpoint."""
        return dataclasses.asdict(self)


Measure = Callable[[TrainSettings, torch.device, Numerics], float]
"""Returns the seconds that a step takes."""


def choose(
    settings: TrainSettings,
    device: torch.device,
    measure: Measure | None = None,
    known: Mapping[str, Any] | None = None,
) -> Numerics:
    """Return the fastest of the choices that the settings leave open, as `measure` or `seconds_per_step` says.

    A candidate that does not fit into memory is left out. If none fits, the error of the last one is raised. Nothing is
    measured if the fastest is `known` already, as `Numerics.to_json` returns it.
    """
    choices = list(candidates(settings, device))
    if len(choices) == 1:
        return choices[0]
    for numerics in choices:
        if numerics.to_json() == known:
            return numerics
    measure = measure or seconds_per_step
    times: dict[Numerics, float] = {}
    shortage: Exception | None = None
    for numerics in choices:
        try:
            times[numerics] = measure(settings, device, numerics)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            shortage = error.with_traceback(None)  # the frames hold the model in memory
        if shortage is not None:
            torch.cuda.empty_cache()
    if not times:
        assert shortage is not None
        raise shortage
    return fastest(times)


def fastest(times: Mapping[Numerics, float]) -> Numerics:
    """Return the fastest choice by the seconds of each, in the order of `candidates`."""
    best = next(iter(times))
    for numerics, seconds in times.items():
        if seconds * CLEAR_GAIN < times[best]:
            best = numerics
    return best


def candidates(settings: TrainSettings, device: torch.device) -> Iterator[Numerics]:
    """Yield the choices that the settings leave open. The first one is the one to beat."""
    precisions: list[Precision] = ["float32"]
    if settings.precision != "auto":
        precisions = [settings.precision]
    elif has_fast_bfloat16(device):
        precisions.append("bfloat16")
    layouts = [True, False] if settings.memory_format == "auto" else [settings.memory_format == "channels_last"]
    for precision, channels_last in itertools.product(precisions, layouts):
        yield Numerics(precision=precision, channels_last=channels_last)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Does the device compute in bfloat16 itself? A CPU that emulates it takes twice as long as in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def seconds_per_step(settings: TrainSettings, device: torch.device, numerics: Numerics) -> float:
    """Make a few steps on a model of its own, and return the seconds of the slowest after the first.

    The first one compiles kernels. The slowest counts because gradients in bfloat16 stall where a CPU has other work.
    """
    num_images = trial_images(settings, device)
    method = build_method(settings, 4 * num_images).to(device).to(memory_format=numerics.memory_format)
    optimizer = optimizers.build(settings.optimizer, method, num_images)
    views = _trial_views(settings, num_images, device, numerics)
    image_ids = torch.arange(num_images, device=device)
    times = [_seconds_of_step(method, optimizer, views, image_ids, step, numerics) for step in range(1 + TRIAL_STEPS)]
    return max(times[1:])


def trial_images(settings: TrainSettings, device: torch.device) -> int:
    """Return the number of images in a step that compares the choices."""
    most = CPU_TRIAL_IMAGES if device.type == "cpu" else CUDA_TRIAL_IMAGES
    return min(settings.batch_size or most, most)


def _trial_views(settings: TrainSettings, num_images: int, device: torch.device, numerics: Numerics) -> list[Tensor]:
    num_views: dict[int, int] = {}
    for pipeline in settings.views.pipelines:
        size = pipeline.size(settings.image_size)
        num_views[size] = num_views.get(size, 0) + pipeline.count
    views = []
    for size, count in num_views.items():
        flat = torch.linspace(-2, 2, count * num_images * 3 * size**2, device=device).view(-1, 3, size, size)
        flat = flat.to(numerics.dtype, memory_format=numerics.memory_format)
        views.append(flat.view(count, num_images, 3, size, size))
    return views


def _seconds_of_step(
    method: Method,
    optimizer: Optimizer,
    views: Views,
    image_ids: Tensor,
    step: int,
    numerics: Numerics,
) -> float:
    start = time.perf_counter()
    moment = Moment(step=step, total_steps=1 + TRIAL_STEPS)
    train_step(method, optimizer, views, image_ids, moment, precision=numerics.precision)
    if image_ids.is_cuda:
        torch.cuda.synchronize(image_ids.device)
    return time.perf_counter() - start
