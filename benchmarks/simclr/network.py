"""The bare network of a side: forward and backward pass with the head, without views, loss and update.

It prints one JSON object. lightly must be installed for its side.
Shapes: B batch, S pixels on a side of a view, P projection.
"""

from __future__ import annotations

import json
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from benchmarks.simclr.plan import Setting, Side, Training
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

REPEATS = 3
MATRIX_WORK = (
    "aten::mkldnn_convolution", "aten::_slow_conv2d_forward", "aten::convolution_backward", "aten::addmm", "aten::mm",
    "aten::bmm", "mkldnn::_linear_pointwise", "aten::mkldnn_linear",
)  # fmt: skip
"""The operations that multiply matrices: convolutions and linear layers, with their gradients."""
Passes = Callable[[], object]


def measure(training: Training, side: Side, setting: Setting | None) -> dict[str, float]:
    """Return the milliseconds of an image with its two views, and the share of them that multiplies matrices."""
    passes = of_job(training, side) if setting is None else of_lightly(training, setting)
    passes()  # chooses the kernels
    times: list[float] = []
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(REPEATS):
            began = time.perf_counter()
            passes()
            times.append(time.perf_counter() - began)
    matrix_us = sum(event.self_cpu_time_total for event in profiled.key_averages() if event.key in MATRIX_WORK)
    return {
        "network_ms_per_image": 1e3 * statistics.median(times) / training.batch_size,
        "matrix_fraction": matrix_us / 1e6 / sum(times),
    }


def of_job(training: Training, side: Side) -> Passes:
    """Return the passes of our network, as a job makes them: both views in one pass, in channels_last."""
    from benchmarks.simclr.job import config

    from manyview_server.learn.methods import build_method, resolve
    from manyview_server.worker.precision import DTYPES

    settings = resolve("simclr", config(training, side.precision))
    method: Any = build_method(settings, training.num_images).to(memory_format=torch.channels_last)
    images = torch.cat(views(training)).to(DTYPES[side.precision], memory_format=torch.channels_last)
    return lambda: backward(method, side.precision, lambda: (method.head(method.encoder(images)),))


def of_lightly(training: Training, setting: Setting) -> Passes:
    """Return the passes of lightly's network with a setting."""
    from benchmarks.simclr.peer import Loop

    if setting.threads:
        torch.set_num_threads(setting.threads)
    loop = Loop(training, setting)
    pair = views(training)
    return lambda: backward(loop.network, setting.precision, lambda: loop.project(*pair))


def views(training: Training) -> list[Tensor]:
    """Return two views of noise, (B, 3, S, S)."""
    shape = (training.batch_size, 3, training.image_size, training.image_size)
    return [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]


def backward(network: nn.Module, precision: str, forward: Callable[[], tuple[Tensor, ...]]) -> None:
    """Make a forward and a backward pass, and drop the gradients.

    The gradient differs from output to output: the batch norm at the end has none for equal ones, and numbers that are
    nearly zero are slow to multiply.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        outputs = forward()
    torch.autograd.backward(outputs, [torch.randn(output.shape).to(output.dtype) for output in outputs])
    network.zero_grad()


def main() -> None:
    """Measure the network of one side."""
    from benchmarks.simclr.peer import arguments_of

    wanted, _ = arguments_of(__doc__)
    warnings.simplefilter("ignore")
    setting = None if wanted["setting"] is None else Setting(**wanted["setting"])
    print(json.dumps(measure(Training(**wanted["training"]), Side(**wanted["side"]), setting)))


if __name__ == "__main__":
    main()
