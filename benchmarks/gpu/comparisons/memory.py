"""Checks that a device whose memory is full does no harm: the error is recognized, nothing is damaged, and work
continues."""

from __future__ import annotations

from collections.abc import Callable

import torch
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.comparisons import pictures
from benchmarks.gpu.comparisons.steps import built, settings_of, step_of, views_of
from torch import Tensor

from manyview_server.learn.out_of_memory import is_out_of_memory

SPARE_BYTES = 64 << 20
"""The memory that is left free during a step that needs more."""


def run(bench: Bench) -> None:
    """Try a tensor that is too large, then a step while the device's memory is taken."""
    error = failure_of(lambda: torch.empty(1 << 50, dtype=torch.uint8, device=bench.device))
    bench.check("a tensor of a pebibyte", is_out_of_memory(error), repr(error)[:200])
    if not bench.cuda:
        return bench.skip("a step on a full device", "no CUDA device")
    settings = settings_of(bench, "simclr", image_size=bench.size(224, 32), batch_size=bench.size(64, 8))
    assert settings.batch_size is not None
    images = pictures.tensor(8, settings.image_size).repeat(settings.batch_size // 8, 1, 1, 1)
    method, optimizer = built(settings, bench.device)
    views = views_of(images, settings, 0)
    step_of(method, optimizer, views, 0)  # libraries take what they keep
    before = [tensor.clone() for tensor in method.state_dict().values()]
    blocked = block(bench)
    error = failure_of(lambda: step_of(method, optimizer, views, 1))
    bench.check("a step on a full device", is_out_of_memory(error), repr(error)[:200])
    del blocked
    bench.release()
    same = all(torch.equal(a, b) for a, b in zip(before, method.state_dict().values(), strict=True) if a.ndim > 1)
    bench.check("the weights are as they were", same)
    result = step_of(method, optimizer, views, 2)
    bench.check("the next step is taken", bool(result.accepted))


def failure_of(call: Callable[[], object]) -> BaseException:
    """Return the error that the call raises, without the frames that hold its tensors."""
    try:
        call()
    except Exception as error:
        return error.with_traceback(None)
    return AssertionError("it did not fail")


def block(bench: Bench) -> list[Tensor]:
    """Allocate almost all of the device's free memory."""
    bench.release()
    taken: list[Tensor] = []
    while (free := torch.cuda.mem_get_info(bench.device)[0] - SPARE_BYTES) > SPARE_BYTES:
        try:
            taken.append(torch.empty(min(free, 8 << 30), dtype=torch.uint8, device=bench.device))
        except torch.OutOfMemoryError:  # the rest is in pieces
            break
    return taken
