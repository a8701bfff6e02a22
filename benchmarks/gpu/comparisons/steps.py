"""Checks of the steps of every method: they agree with the CPU's, and none waits for the device."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from benchmarks.gpu.bench import CPU, Bench, relative_error
from benchmarks.gpu.comparisons import pictures
from torch import Tensor

from manyview_server.learn import optimizers
from manyview_server.learn.evaluation.alarms import Alarms
from manyview_server.learn.evaluation.linear_probe import LinearProbe
from manyview_server.learn.methods import METHODS, Method, Moment, build_method, resolve
from manyview_server.learn.modules import masking
from manyview_server.learn.optimizers import Optimizer
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.step import Precision, StepResult, train_step
from manyview_server.learn.views import make_views
from manyview_server.messages.message import Message
from manyview_server.worker.training.reporter import StepReporter

TRANSFORMERS = ("mae", "simmim")
NUM_STEPS = 10
WHY = "float32 without TF32; batch norms of small batches stretch rounding"
WARM_UP_STEPS, WATCHED_STEPS = 3, 5


def settings_of(bench: Bench, method: str, **changes: Any) -> TrainSettings:
    """Return the settings of a small job of the method."""
    backbone = "vit_tiny" if method in TRANSFORMERS else "resnet18"
    width = 0.34 if bench.quick and method in TRANSFORMERS else 1.0 if not bench.quick else 0.125
    values = {
        "backbone": backbone,
        "backbone_width": width,
        "image_size": bench.size(64, 16),
        "batch_size": bench.size(32, 4),
    }
    return resolve(method, values | changes)


def built(settings: TrainSettings, device: torch.device) -> tuple[Method, Optimizer]:
    """Return the method, with the same weights on every device, and its optimizer."""
    assert settings.batch_size is not None
    method = build_method(settings, 100 * settings.batch_size).to(device)
    return method, optimizers.build(settings.optimizer, method, settings.batch_size)


def views_of(images: Tensor, settings: TrainSettings, step: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Return the views of a step, as the trainer makes them."""
    return make_views(
        images,
        torch.full((len(images), 2), images.shape[-1]),
        torch.arange(len(images)),
        settings.views,
        image_size=settings.image_size,
        seed=settings.seed,
        epoch=step,
        dtype=dtype,
        memory_format=torch.channels_last,
    )


def parity(bench: Bench) -> None:
    """Check two steps of each method with the same weights and views on both sides, a step in bfloat16, and one of
    NaN."""
    for name in METHODS:
        settings = settings_of(bench, name)
        assert settings.batch_size is not None
        images = pictures.tensor(settings.batch_size, 2 * settings.image_size)
        sides = [built(settings, device) for device in (CPU, bench.device)]
        results: list[list[StepResult]] = [[], []]
        for step in range(2):
            views = views_of(images, settings, step)
            for (method, optimizer), found in zip(sides, results, strict=True):
                found.append(step_of(method, optimizer, views, step))
        for step, (expected, found) in enumerate(zip(*results, strict=True)):
            tolerance = 1e-3 * 10**step
            error = abs(float(found.loss) - float(expected.loss))
            most = tolerance * max(1.0, abs(float(expected.loss)))
            bench.check(
                f"{name}: loss of step {step + 1}", error <= most, f"{error:.2g} apart, at most {most:.2g}: {WHY}"
            )
            bench.close(
                f"{name}: features of step {step + 1}", found.representation, expected.representation, tolerance, WHY
            )
        bench.close(f"{name}: gradient norm", results[1][0].gradient_norm, results[0][0].gradient_norm, 1e-2, WHY)
        changed = max_update_error(settings, sides[0][0], sides[1][0])
        bench.check(
            f"{name}: weights after 2 steps", changed <= 0.1, f"updates differ by {changed:.2g} of their length"
        )
        in_bfloat16(bench, settings, images, results[1][0])
        refused(bench, name, sides[1], views_of(images, settings, 2))
    masks(bench)


def step_of(
    method: Method, optimizer: Optimizer, views: list[Tensor], step: int, precision: Precision = "float32"
) -> StepResult:
    """Take a step on the device of the method."""
    device = next(method.parameters()).device
    image_ids = torch.arange(views[0].shape[1]).to(device, non_blocking=True)
    here = [each.to(device, non_blocking=True) for each in views]
    return train_step(method, optimizer, here, image_ids, Moment(step=step, total_steps=NUM_STEPS), precision=precision)


def max_update_error(settings: TrainSettings, expected: Method, found: Method) -> float:
    """Return the distance of the two updates of all weights, as a share of the length of the expected one."""
    first = torch.cat([p.detach().flatten() for p in built(settings, CPU)[0].parameters()])
    ours, theirs = (torch.cat([p.detach().cpu().flatten() for p in each.parameters()]) for each in (found, expected))
    return relative_error(ours - first, theirs - first)


def in_bfloat16(bench: Bench, settings: TrainSettings, images: Tensor, exact: StepResult) -> None:
    """Check that the first step under autocast is near the one in float32."""
    method, optimizer = built(settings, bench.device)
    views = views_of(images.to(bench.device), settings, 0, torch.bfloat16)
    result = step_of(method, optimizer, views, 0, "bfloat16")
    error = abs(float(result.loss) - float(exact.loss))
    most = 0.1 * max(1.0, abs(float(exact.loss)))
    bench.check(f"{settings.method}: loss in bfloat16", error <= most, f"{error:.2g} apart, at most {most:.2g}")
    bench.check(f"{settings.method}: accepted in bfloat16", bool(result.accepted))


def refused(bench: Bench, name: str, side: tuple[Method, Optimizer], views: list[Tensor]) -> None:
    """Check that a step of NaN leaves weights, statistics, teacher, bank and optimizer as they were."""
    method, optimizer = side

    def held() -> list[Tensor]:
        state = [tensor for each in optimizer.state.values() for tensor in each.values()]
        return [tensor.clone() for tensor in (*method.state_dict().values(), *state)]

    before = held()
    result = step_of(method, optimizer, [view * torch.nan for view in views], 2)
    kept = all(torch.equal(old, new) for old, new in zip(before, held(), strict=True))
    bench.check(f"{name}: a step of NaN is refused", not bool(result.accepted) and kept)


def masks(bench: Bench) -> None:
    """Check that hidden patches are the same on every device."""
    ids = torch.arange(16) * 2**40
    for on_cpu, on_device in zip(
        masking.split_patches(ids, 196, 0.75, seed=3, epoch=4),
        masking.split_patches(ids.to(bench.device), 196, 0.75, seed=3, epoch=4),
        strict=True,
    ):
        bench.same("split_patches", on_device, on_cpu)
    expected = masking.block_mask(ids, (14, 14), 0.6, block=3, seed=3, epoch=4)
    bench.same(
        "block_mask", masking.block_mask(ids.to(bench.device), (14, 14), 0.6, block=3, seed=3, epoch=4), expected
    )


class Ignored:
    """A channel that discards every message."""

    def send(self, message: Message) -> None:
        """Discard the message."""


def syncs(bench: Bench) -> None:
    """Row G13: the waits in a step of each method, including views, probe and logging of every step.

    They are counted while torch only warns. Then the same steps run while a wait is an error. The reporter reads a step
    by an event when the next step is under way: that one point may wait, and it does not synchronize the device.
    """
    for name in METHODS:
        counts, problem = 0, ""
        precision: Precision = "bfloat16" if bench.cuda else "float32"
        steps = looped(bench, settings_of(bench, name), precision)
        try:
            for _ in range(WARM_UP_STEPS):
                next(steps)
            if bench.cuda:
                counts = counted(bench, steps)
            with bench.forbidding_waits():
                for _ in range(WATCHED_STEPS):
                    next(steps)
        except RuntimeError as error:
            problem = str(error).splitlines()[0]
        bench.check(f"{name}: no step waits for the device", not problem and counts == 0, problem or f"{counts} waits")
        if bench.cuda:
            bench.figure("G13", f"waits in a step, {name}", counts / WATCHED_STEPS, "per step", steps=WATCHED_STEPS)
    if not bench.cuda:
        bench.skip("set_sync_debug_mode", "no CUDA device")


def counted(bench: Bench, steps: Iterator[None]) -> int:
    """Return how often torch warns of a wait in some steps."""
    bench.wait()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in range(WATCHED_STEPS):
                next(steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in caught)


def looped(bench: Bench, settings: TrainSettings, precision: Precision) -> Iterator[None]:
    """Run the trainer's loop without the parts that may wait: from images on the device to scalars on their way."""
    assert settings.batch_size is not None
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    images = pictures.tensor(2 * settings.batch_size, 2 * settings.image_size).to(bench.device)
    labels = torch.arange(settings.batch_size) % 3
    method, optimizer = built(settings, bench.device)
    probe = LinearProbe(method.encoder.feature_dim, 3, 0.1).to(bench.device)
    reporter = StepReporter(Ignored(), every_steps=1, batch_size=settings.batch_size, alarms=Alarms())
    for step in range(NUM_STEPS * 100):
        rows = (torch.arange(settings.batch_size) + step) % len(images)
        batch = images.index_select(0, rows.to(bench.device, non_blocking=True))
        result = step_of(method, optimizer, views_of(batch, settings, step, dtype), step % NUM_STEPS, precision)
        here = labels.to(bench.device, non_blocking=True).repeat(len(result.representation) // len(labels))
        probe.learn(result.representation, here, result.accepted)
        reporter.step_done(step + 1, 0, result)
        yield
