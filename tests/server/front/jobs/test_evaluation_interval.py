"""kNN is measured often enough to follow a job, and seldom enough to cost little."""

from __future__ import annotations

from typing import Any

import pytest

from manyview_server.front.jobs import evaluation_interval
from manyview_server.messages.timing import StepTimed
from manyview_server.supervise.timers.job_seconds import Workload

SETTINGS: dict[str, Any] = {
    "evaluation": {"knn_every_epochs": 1, "knn_holdout_fraction": 0.1, "knn_max_bank": 10_000},
    "epochs": 100,
}


def workload(num_labelled: int) -> Workload:
    return Workload(num_images=1_000, num_labelled=num_labelled, pixels=1e6, short_side=600, common_side=0)


@pytest.mark.parametrize(
    ("num_labelled", "embed_s", "expected"),
    [
        (1_000, 0.0, 1),
        (1_000, 0.0009, 1),  # an epoch of 18 steps takes 18 s, and an evaluation 0.9 s: 4.8 %
        (1_000, 0.001, 2),
        (1_000, 0.0175, 19),
        (500, 0.0175, 9),  # 19 steps, because 50 images are held out, and half of the images to embed
        (0, 0.0175, 1),
    ],
)
def test_the_share_of_evaluations_decides_how_many_epochs_lie_between_them(
    num_labelled: int, embed_s: float, expected: int
) -> None:
    timed = StepTimed(batch_size=50, step_s=1.0, embed_s=embed_s, decode_s=0.0)
    assert evaluation_interval.wanted(workload(num_labelled), SETTINGS, timed) == expected


@pytest.mark.parametrize(("wanted", "epochs", "expected"), [(3, 100, 3), (30, 100, 10), (3, 12, 1), (1, 300, 1)])
def test_a_job_has_ten_evaluations_if_it_has_so_many_epochs(wanted: int, epochs: int, expected: int) -> None:
    assert evaluation_interval.bounded(wanted, epochs) == expected


def test_the_setting_is_put_beside_others() -> None:
    assert evaluation_interval.put_into({"seed": 1}, 3) == {"seed": 1, "evaluation": {"knn_every_epochs": 3}}
    assert not evaluation_interval.is_in({"evaluation": {"knn_k": 5}})
    assert evaluation_interval.is_in(evaluation_interval.put_into({"evaluation": {"knn_k": 5}}, 3))
