"""A step of a configuration is measured once on a device, whatever does not change its time."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from manyview_server.messages.timing import StepTimed, TimeStep
from manyview_server.supervise.timers import step_times
from manyview_server.supervise.timers.step_times import StepTimes, key

VERSIONS = {"torch": "2", "device": "two cores"}
TIMED = StepTimed(batch_size=64, step_s=0.25, embed_s=0.001, decode_s=0.02)


def request(settings: dict[str, Any] | None = None, **changes: Any) -> TimeStep:
    asked = TimeStep(
        settings={"backbone": "resnet9", "image_size": 64, **(settings or {})},
        num_images=1000,
        decode_size=128,
        device="cpu",
        num_threads=2,
        limit_s=1,
    )
    return replace(asked, **changes)


def test_a_time_is_kept_for_later_starts_of_the_server(tmp_path: Path) -> None:
    StepTimes(tmp_path / "times.json", VERSIONS).keep(request(), TIMED)
    assert StepTimes(tmp_path / "times.json", VERSIONS).find(request()) == TIMED


@pytest.mark.parametrize(
    "same",
    [
        request({"epochs": 3, "seed": 1, "checkpoint_every_steps": 5, "evaluation": {"knn_every_epochs": 0}}),
        request(num_images=1023),
        request(limit_s=9),
    ],
)
def test_what_does_not_change_a_step_shares_its_time(same: TimeStep) -> None:
    assert key(same) == key(request())


@pytest.mark.parametrize(
    "other",
    [
        request({"image_size": 32}),
        request({"views": {"pipelines": [{"count": 2}]}}),
        request(num_images=1024),
        request(decode_size=64),
        request(device="cuda:0"),
        request(num_threads=1),
    ],
)
def test_what_changes_a_step_does_not(other: TimeStep) -> None:
    assert key(other) != key(request())


def test_times_of_another_device_or_release_are_ignored(tmp_path: Path) -> None:
    StepTimes(tmp_path / "times.json", VERSIONS).keep(request(), TIMED)
    assert StepTimes(tmp_path / "times.json", VERSIONS | {"torch": "3"}).find(request()) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"versions": {"torch": "2", "device": "two cores", "timer": "2"}, "times": {"a": [1]}}',
    ],
)
def test_a_damaged_file_is_ignored_and_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "times.json"
    path.write_text(text)
    times = StepTimes(path, VERSIONS)
    assert times.find(request()) is None
    times.keep(request(), TIMED)
    assert StepTimes(path, VERSIONS).find(request()) == TIMED


def test_the_oldest_times_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_times, "MAX_TIMES", 2)
    times = StepTimes(tmp_path / "times.json", VERSIONS)
    for size in (8, 16, 32):
        times.keep(request({"image_size": size}), TIMED)
    found = [times.find(request({"image_size": size})) for size in (8, 16, 32)]
    assert found == [None, TIMED, TIMED]


def test_a_file_that_cannot_be_written_loses_only_later_starts(tmp_path: Path) -> None:
    times = StepTimes(tmp_path / "missing" / "times.json", VERSIONS)
    times.keep(request(), TIMED)
    assert times.find(request()) == TIMED


def test_a_measurement_beside_other_work_counts_for_a_minute_and_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "times.json"
    times, slow = StepTimes(path, VERSIONS), replace(TIMED, step_s=22.0, is_disturbed=True)
    times.keep(request(), slow)
    times.keep(request({"image_size": 32}), TIMED)
    assert times.find(request()) == slow, "the job has the estimate of its plan"
    assert times.image_s(request().settings, "cpu", 2) == 22.0 / 64
    later = StepTimes(path, VERSIONS)
    assert (later.find(request()), later.find(request({"image_size": 32}))) == (None, TIMED)
    ended_s = time.monotonic() + step_times.DISTURBED_S
    monkeypatch.setattr(time, "monotonic", lambda: ended_s)
    assert times.find(request()) is None
    times.keep(request(), TIMED)
    assert times.find(request()) == TIMED


def test_the_newest_measurement_of_a_step_says_how_long_an_image_takes(tmp_path: Path) -> None:
    times = StepTimes(tmp_path / "times.json", VERSIONS)
    assert times.image_s(request().settings, "cpu", 2) == 0
    times.keep(request(), TIMED)
    times.keep(request(num_images=5_000), replace(TIMED, batch_size=100, step_s=1.0))
    assert times.image_s({**request().settings, "epochs": 7}, "cpu", 2) == 0.01
    assert times.image_s(request().settings, "cpu", 1) == 0


NUMERICS = {"precision": "bfloat16", "channels_last": True, "float32_products": "ieee"}


def test_the_fastest_format_is_known_right_after_its_measurement_for_every_size_of_a_data_set(tmp_path: Path) -> None:
    times = StepTimes(tmp_path / "times.json", VERSIONS)
    times.keep(request(), replace(TIMED, numerics=NUMERICS))
    assert times.numerics({**request().settings, "epochs": 7}, "cpu", 2) == NUMERICS
    assert times.numerics({**request().settings, "image_size": 32}, "cpu", 2) == {}
    assert times.numerics(request().settings, "cuda:0", 2) == {}
    assert times.numerics(request().settings, "cpu", 1) == {}
    times.keep(request({"image_size": 32}), TIMED)
    assert times.numerics(request({"image_size": 32}).settings, "cpu", 2) == {}, "there was no time to try all"


def test_the_fastest_format_is_found_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = StepTimes(tmp_path / "times.json", VERSIONS)
    times.keep(request(), replace(TIMED, numerics=NUMERICS))
    assert times.find(request()) == TIMED
    assert StepTimes(tmp_path / "times.json", VERSIONS).numerics(request().settings, "cpu", 2) == {}
    monkeypatch.setattr(step_times, "FRESH_S", 0.0)
    assert times.numerics(request().settings, "cpu", 2) == {}
