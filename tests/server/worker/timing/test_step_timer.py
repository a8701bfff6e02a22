"""A step timer measures a step of the job, of as many images as the time allows."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from manyview_server.learn import methods
from manyview_server.messages.timing import StepTimed, TimeStep, TimingFailed
from manyview_server.worker import precision
from manyview_server.worker.timing.step_timer import MeasuredStep, answer, step_seconds

SETTINGS = {"backbone": "resnet9", "backbone_width": 0.125, "image_size": 16, "batch_size": 12, "precision": "float32"}


def request(method: str = "simclr", limit_s: float = 0.0, **changes: Any) -> TimeStep:
    settings = methods.to_json(methods.resolve(method, SETTINGS)) | changes
    return TimeStep(settings=settings, num_images=40, decode_size=32, device="cpu", num_threads=1, limit_s=limit_s)


@pytest.mark.parametrize("method", ["simclr", "moco", "dino"])
def test_every_part_of_a_job_has_a_time(method: str) -> None:
    timed = answer(request(method))
    assert isinstance(timed, StepTimed)
    assert timed.batch_size == 12
    assert min(timed.step_s, timed.embed_s, timed.decode_s) > 0


def test_a_batch_that_is_left_open_is_the_one_that_a_job_would_have() -> None:
    timed = answer(request(batch_size=None))
    assert isinstance(timed, StepTimed)
    assert timed.batch_size == 32


def test_the_fastest_format_is_told_if_there_was_time_to_try_all() -> None:
    settings, device = methods.resolve("simclr", {**SETTINGS, "precision": "auto"}), torch.device("cpu")
    timed = answer(request(precision="auto", limit_s=60))
    assert isinstance(timed, StepTimed)
    assert timed.numerics in [numerics.to_json() for numerics in precision.candidates(settings, device)]


def test_without_time_the_fastest_format_is_left_open() -> None:
    timed = answer(request(precision="auto"))
    assert isinstance(timed, StepTimed)
    assert timed.numerics == {}


def test_a_network_that_cannot_be_built_is_refused() -> None:
    found = answer(request(backbone="timm/no_such_network", backbone_width=1.0))
    assert isinstance(found, TimingFailed)
    assert found.reason == "CONFIG_INVALID"
    assert "no_such_network" in found.message


class Steps:
    """Steps that take a fixed time and a time for each image, and a tenth more at the first of a size."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, num_images: int) -> float:
        first = num_images not in self.sizes
        self.sizes.append(num_images)
        return (1 + num_images / 8) * (1.1 if first else 1)


SMALLEST = MeasuredStep(8, 2.0)


def test_a_batch_is_measured_whole_if_there_is_time() -> None:
    steps = Steps()
    assert step_seconds(steps, 64, SMALLEST, time.perf_counter() + 1e6) == ((64, 9), 9)
    assert sorted(set(steps.sizes)) == [16, 32, 64]


def test_without_time_a_small_batch_is_scaled_up() -> None:
    assert step_seconds(Steps(), 64, SMALLEST, time.perf_counter()) == (SMALLEST, 16)
    assert step_seconds(Steps(), 8, SMALLEST, time.perf_counter()) == (SMALLEST, 2)


def test_a_line_through_two_sizes_leads_to_the_batch() -> None:
    assert step_seconds(Steps(), 64, SMALLEST, time.perf_counter() + 11) == ((16, 3), 9)
