from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from manyview_server.messages.timing import StepTimed
from manyview_server.supervise.timers.job_seconds import START_S, Workload, is_short, job_seconds, num_steps

WORKLOAD = Workload(num_images=1_000, num_labelled=1_000, pixels=500_000, short_side=600, common_side=0)
TIMED = StepTimed(batch_size=50, step_s=2.0, embed_s=0.01, decode_s=0.02)


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "image_size": 64,
        "decode_size": None,
        "batch_size": 50,
        "epochs": 10,
        "max_steps": None,
        "precision": "float32",
        "evaluation": {"knn_every_epochs": 0, "knn_holdout_fraction": 0.1, "knn_max_bank": 10_000},
        "views": {"pipelines": [{"count": 2, "size_fraction": 1.0}]},
        **changes,
    }


def evaluated(**changes: Any) -> dict[str, Any]:
    return settings(evaluation={"knn_every_epochs": 2, "knn_holdout_fraction": 0.1, "knn_max_bank": 800}, **changes)


def test_steps_and_decoding_are_added_up() -> None:
    # 1,000 images of half a megapixel take 10 s of one thread; 10 epochs have 20 steps each.
    assert job_seconds(WORKLOAD, settings(), TIMED, num_threads=2) == pytest.approx(START_S + 5 + 200 * 2.0)


def test_held_out_images_are_embedded_and_not_trained_on() -> None:
    # 900 images train in 18 steps. Of 100 held-out images and a bank of 800, 6 evaluations embed 900 each.
    expected = START_S + 5 + 180 * 2.0 + 6 * 900 * 0.01
    assert job_seconds(WORKLOAD, evaluated(), TIMED, num_threads=2) == pytest.approx(expected)
    unlabelled = replace(WORKLOAD, num_labelled=0)
    assert job_seconds(unlabelled, evaluated(), TIMED, 2) == job_seconds(unlabelled, settings(), TIMED, 2)


def test_a_number_format_that_is_not_known_yet_costs_a_trial() -> None:
    trial_s = job_seconds(WORKLOAD, settings(precision="auto"), TIMED, 2) - job_seconds(WORKLOAD, settings(), TIMED, 2)
    assert trial_s == pytest.approx(4.0)
    known = replace(TIMED, numerics={"precision": "bfloat16"})
    assert job_seconds(WORKLOAD, settings(precision="auto"), known, 2) == job_seconds(WORKLOAD, settings(), TIMED, 2)


def test_a_job_that_continues_has_only_the_rest_to_do() -> None:
    assert job_seconds(WORKLOAD, settings(), TIMED, 2, first_step=150) == pytest.approx(START_S + 5 + 50 * 2.0)
    assert job_seconds(WORKLOAD, settings(), TIMED, 2, first_step=500) == pytest.approx(START_S)


def test_only_images_that_are_needed_are_decoded_and_again_if_there_is_no_room_for_them() -> None:
    # A step of 50 images decodes for 0.25 s. 4 steps see 200 images; 200 steps see 1,000 images ten times.
    assert job_seconds(WORKLOAD, settings(max_steps=4), TIMED, 2) == pytest.approx(START_S + 1 + 4 * 2.0)
    for num_kept, decode_s in ((0, 50), (400, 5 + 0.6 * 45), (1_000, 5), (5_000, 5)):
        found = job_seconds(WORKLOAD, settings(), TIMED, 2, num_kept=num_kept)
        assert found == pytest.approx(START_S + decode_s + 200 * 2.0)


def test_an_evaluation_decodes_again_what_is_not_kept() -> None:
    # 5 evaluations after the first embed 900 images each, all of which were seen before; 180 steps see 900 ten times.
    plain_s = job_seconds(WORKLOAD, evaluated(), TIMED, 2)
    for num_kept, again in ((0, 1.0), (250, 0.75), (1_000, 0.0)):
        extra_s = job_seconds(WORKLOAD, evaluated(), TIMED, 2, num_kept=num_kept) - plain_s
        assert extra_s == pytest.approx(again * (9 * 900 + 6 * 900 - 100) * 0.005)


@pytest.mark.parametrize(("max_steps", "expected"), [(None, 200), (30, 30), (500, 200)])
def test_epochs_or_max_steps_end_a_job(max_steps: int | None, expected: int) -> None:
    assert num_steps(WORKLOAD, settings(max_steps=max_steps), 50) == expected


@pytest.mark.parametrize(
    ("common_side", "decode_size", "expected"), [(0, None, 128), (96, None, 96), (300, None, 128), (96, 40, 40)]
)
def test_the_size_of_decoded_images_is_that_of_the_trainer(
    common_side: int, decode_size: int | None, expected: int
) -> None:
    assert replace(WORKLOAD, common_side=common_side).decode_size(settings(decode_size=decode_size)) == expected


@pytest.mark.parametrize(
    ("changes", "short"),
    [
        ({}, False),  # 1,000 images, 10 epochs, 2 views of 64 x 64
        ({"image_size": 8, "epochs": 1}, True),
        ({"max_steps": 2}, True),
        ({"max_steps": 2, "batch_size": None}, False),
    ],
)
def test_a_job_of_few_pixels_is_short(changes: dict[str, Any], short: bool) -> None:
    assert is_short(WORKLOAD, settings(**changes)) == short


def test_many_large_images_are_never_short() -> None:
    assert not is_short(replace(WORKLOAD, pixels=12e6), settings(max_steps=1, batch_size=2))
