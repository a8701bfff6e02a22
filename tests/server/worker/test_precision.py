from __future__ import annotations

from typing import Any

import pytest
import torch

from manyview_server.learn import methods
from manyview_server.learn.settings import TrainSettings
from manyview_server.worker import precision
from manyview_server.worker.precision import Measure, Numerics

CPU = torch.device("cpu")
BEST = Numerics(precision="float32", channels_last=True)
HALF = Numerics(precision="bfloat16", channels_last=False)


def settings(**overrides: Any) -> TrainSettings:
    values = {"backbone": "resnet9", "backbone_width": 0.125, "image_size": 16, "batch_size": 4}
    return methods.resolve("simclr", values | overrides)


@pytest.mark.parametrize(("seconds", "chosen"), [(0.5, HALF), (0.95, BEST)])
def test_another_format_is_chosen_only_for_a_clear_gain(
    monkeypatch: pytest.MonkeyPatch, seconds: float, chosen: Numerics
) -> None:
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: True)
    times = {HALF: seconds}
    assert precision.choose(settings(), CPU, lambda settings, device, numerics: times.get(numerics, 1.0)) == chosen


@pytest.mark.parametrize(("seconds", "is_chosen"), [(0.5, True), (0.57, False)])
def test_a_layout_is_chosen_only_for_a_clear_gain_over_the_best_format(
    monkeypatch: pytest.MonkeyPatch, seconds: float, is_chosen: bool
) -> None:
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: True)
    faster = Numerics(precision="bfloat16", channels_last=True)
    times = {faster: 0.6, HALF: seconds}
    assert precision.choose(settings(), CPU, lambda settings, device, numerics: times.get(numerics, 1.0)) == (
        HALF if is_chosen else faster
    )


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["cuda", "python", "cpu"],
)
@pytest.mark.parametrize(("too_large", "chosen"), [("float32", HALF), ("bfloat16", BEST)])
def test_a_format_that_does_not_fit_into_memory_is_left_out(
    monkeypatch: pytest.MonkeyPatch, error: Exception, too_large: str, chosen: Numerics
) -> None:
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: True)

    def seconds(settings: TrainSettings, device: torch.device, numerics: Numerics) -> float:
        if numerics.precision == too_large:
            raise error
        return 0.5 if numerics in (HALF, BEST) else 1.0

    assert precision.choose(settings(), CPU, seconds) == chosen


def test_where_no_format_fits_into_memory_the_shortage_is_raised_and_other_errors_are_never_hidden() -> None:
    def raises(error: Exception) -> Measure:
        def seconds(*_: object) -> float:
            raise error

        return seconds

    with pytest.raises(torch.OutOfMemoryError):
        precision.choose(settings(), CPU, raises(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(RuntimeError, match="a bug"):
        precision.choose(settings(), CPU, raises(RuntimeError("a bug")))


def test_what_the_settings_say_is_not_overruled() -> None:
    assert precision.choose(settings(precision="bfloat16"), CPU).precision == "bfloat16"
    assert precision.choose(settings(precision="float32"), CPU).precision == "float32"
    assert not precision.choose(settings(memory_format="contiguous"), CPU).channels_last
    assert precision.choose(settings(precision="float32", memory_format="channels_last"), CPU) == BEST


def test_the_trial_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    precision.choose(settings(precision="float32"), CPU)
    assert torch.equal(torch.rand(1), expected)


def test_bfloat16_is_not_tried_where_a_cpu_would_emulate_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: False)
    tried: list[Numerics] = []

    def seconds(settings: TrainSettings, device: torch.device, numerics: Numerics) -> float:
        tried.append(numerics)
        return 1.0

    precision.choose(settings(), CPU, seconds)
    assert {numerics.precision for numerics in tried} == {"float32"}


@pytest.mark.parametrize("known", [HALF, BEST])
def test_a_format_that_was_measured_before_is_not_measured_again(
    monkeypatch: pytest.MonkeyPatch, known: Numerics
) -> None:
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: True)

    def seconds(settings: TrainSettings, device: torch.device, numerics: Numerics) -> float:
        raise AssertionError("measured again")

    assert precision.choose(settings(), CPU, seconds, known=known.to_json()) == known


def test_a_known_format_that_the_device_or_the_settings_exclude_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: False)
    assert precision.choose(settings(), CPU, lambda *_: 1.0, known=HALF.to_json()) == BEST
    assert precision.choose(settings(precision="float32"), CPU, lambda *_: 1.0, known=HALF.to_json()) == BEST


def test_a_format_is_as_fast_as_its_slowest_step_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([9.0, 0.1, 0.4])
    monkeypatch.setattr(precision, "_seconds_of_step", lambda *_: next(times))
    assert precision.seconds_per_step(settings(), CPU, BEST) == 0.4
