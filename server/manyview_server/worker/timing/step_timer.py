"""The step timer: a process that measures how long a job's parts take on this device.

A step is measured with as many images as the time allows, at most the job's batch, and scaled up from there.
"""

from __future__ import annotations

import io
import math
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from manyview_server.configuration import InvalidConfiguration
from manyview_server.learn import methods
from manyview_server.learn.out_of_memory import is_out_of_memory
from manyview_server.learn.plugins import PluginBroken
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views import require_plugins
from manyview_server.messages.timing import StepTimed, TimeStep, TimingFailed
from manyview_server.system.core_time import BUSY, CoreTime
from manyview_server.worker import precision
from manyview_server.worker.channel import WorkerChannel
from manyview_server.worker.images import decoder
from manyview_server.worker.precision import Numerics
from manyview_server.worker.timing.step_trial import StepTrial

WARM_UP_IMAGES = 2
FIRST_IMAGES = 8
"""Formats and layouts are compared in steps of this many images, as a trainer does, or of fewer if these take too long.
"""
EMBED_IMAGES = 8
JPEG_SIDE = 1_000


class MeasuredStep(NamedTuple):
    """The duration of one step of `num_images` images."""

    num_images: int
    seconds: float


def run(channel: WorkerChannel) -> None:
    """Answer requests until the link ends."""
    while True:
        message = channel.receive()
        assert isinstance(message, TimeStep)
        channel.send(answer(message))


def answer(request: TimeStep) -> StepTimed | TimingFailed:
    """Return the answer to one request."""
    try:
        settings = methods.from_json(request.settings)
        require_plugins(settings.views)
        return _measure(settings.for_num_images(request.num_images), request)
    except PluginBroken as broken:
        print(broken.error.traceback, file=sys.stderr, flush=True)
        return TimingFailed(code="FAILED_PRECONDITION", reason="PLUGIN_FAILED", message=str(broken))
    except (InvalidConfiguration, ValueError) as error:
        return TimingFailed(code="FAILED_PRECONDITION", reason="CONFIG_INVALID", message=str(error))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        message = "a step does not fit into the memory of the device"
        return TimingFailed(code="RESOURCE_EXHAUSTED", reason="DEVICE_OUT_OF_MEMORY", message=message)


def _measure(settings: TrainSettings, request: TimeStep) -> StepTimed:
    ends_s, began = time.perf_counter() + request.limit_s, CoreTime.now()
    torch.set_num_threads(request.num_threads)
    trial, smallest, numerics = _fastest_trial(settings, request, ends_s)
    largest, step_s = step_seconds(trial.step_s, _batch_size(settings), smallest, ends_s)
    return StepTimed(
        batch_size=_batch_size(settings),
        step_s=step_s,
        embed_s=min(trial.embed_s(min(EMBED_IMAGES, largest.num_images)) for _ in range(2)),
        decode_s=_jpeg_s(request),
        is_disturbed=CoreTime.now().share_waited(began) >= BUSY,
        numerics=numerics.to_json() if numerics else {},
    )


def _batch_size(settings: TrainSettings) -> int:
    assert settings.batch_size is not None
    return settings.batch_size


def _fastest_trial(
    settings: TrainSettings, request: TimeStep, ends_s: float
) -> tuple[StepTrial, MeasuredStep, Numerics | None]:
    """Return the trial that makes the fastest steps, the time of a small step in it, and what a trainer would choose.

    The slower of two steps decides, because in bfloat16 steps stall where a CPU has other work. But the faster one is
    the time of a small step: a stall does not grow with the number of images, so it must not be scaled up.
    The choice is None if there was no time for all candidates, or for as many images as a trainer compares them with.
    Those that are probably faster come first.
    """
    best: tuple[StepTrial, MeasuredStep] | None = None
    least_s = math.inf
    times: dict[Numerics, float] = {}
    device, num_images = torch.device(request.device), min(FIRST_IMAGES, _batch_size(settings))
    choices = list(precision.candidates(settings, device))
    for numerics in sorted(choices, key=_order):
        if best is not None and time.perf_counter() > ends_s:
            break
        trial = StepTrial(settings, request.num_images, request.decode_size, numerics, device)
        if best is None:
            slower_s = faster_s = trial.step_s(WARM_UP_IMAGES)
            if time.perf_counter() + 5 * slower_s > ends_s:
                num_images = WARM_UP_IMAGES
        if best is not None or time.perf_counter() < ends_s:
            faster_s, slower_s = _seconds(trial, num_images)
            times[numerics] = slower_s
        if slower_s < least_s:
            best, least_s = (trial, MeasuredStep(num_images, faster_s)), slower_s
    assert best is not None
    if len(times) < len(choices) or num_images < precision.trial_images(settings, device):
        return *best, None
    return *best, precision.fastest({numerics: times[numerics] for numerics in choices})


def _seconds(trial: StepTrial, num_images: int) -> tuple[float, float]:
    """Return the seconds of two steps, the faster one first."""
    trial.step_s(num_images)  # the first of a size takes longer
    one, other = trial.step_s(num_images), trial.step_s(num_images)
    return min(one, other), max(one, other)


def _order(numerics: Numerics) -> tuple[bool, bool]:
    """Sort both formats in the first layout before the second layout, and bfloat16 before float32."""
    return not numerics.channels_last, numerics.precision == "float32"


def step_seconds(
    step_s: Callable[[int], float], batch_size: int, smallest: MeasuredStep, ends_s: float
) -> tuple[MeasuredStep, float]:
    """Return the largest step that was measured, and the seconds of a step of `batch_size` images.

    The number of images is doubled until it is the batch, or until another doubling would take longer than the time
    that is left. The rest is a straight line through the two largest numbers.

    Args:
        step_s: makes a step of a given number of images, and returns its seconds.
        smallest: a step that was measured already.
        ends_s: the end of the time, by `time.perf_counter`.
    """
    before, largest = None, smallest
    while largest.num_images < batch_size and time.perf_counter() + 4 * largest.seconds < ends_s:
        before, num_images = largest, min(2 * largest.num_images, batch_size)
        largest = MeasuredStep(
            num_images, min(step_s(num_images) for _ in range(2))
        )  # the first of a size takes longer
    slope = largest.seconds / largest.num_images
    if before is not None:
        measured = (largest.seconds - before.seconds) / (largest.num_images - before.num_images)
        slope = min(slope, max(slope / 2, measured))
    return largest, largest.seconds + slope * (batch_size - largest.num_images)


def _jpeg_s(request: TimeStep) -> float:
    """Return the seconds to decode and resample a JPEG of a million pixels that is as smooth as a photograph."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (JPEG_SIDE // 8, JPEG_SIDE // 8, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((JPEG_SIDE, JPEG_SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    torch.set_num_threads(1)  # as in a trainer, in which each thread decodes an image of its own
    started_s = time.perf_counter()
    decoder.resize(decoder.decode(buffer.getvalue()), request.decode_size)
    torch.set_num_threads(request.num_threads)
    return time.perf_counter() - started_s
