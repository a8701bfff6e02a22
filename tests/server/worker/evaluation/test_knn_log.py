"""The messages to a job's owner about kNN."""

from __future__ import annotations

from typing import cast

import pytest

from manyview_server.worker.evaluation.knn import KnnEvaluation
from manyview_server.worker.evaluation.knn_log import end_line, start_lines

MEASURED = cast(KnnEvaluation, object())


def test_one_line_says_why_knn_is_not_measured_and_what_to_do() -> None:
    why = "every labelled image has the same label. Use at least two labels"
    assert list(start_lines(None, why, has_labels=True, num_held_out=12)) == [
        (
            "warning",
            "kNN is not measured: every labelled image has the same label. Use at least two labels, "
            "or set evaluation.knn_every_epochs to 0 to train on what is held out (12) as well",
        )
    ]


def test_images_without_labels_are_usual() -> None:
    lines = list(start_lines(None, "no image has a label", has_labels=False, num_held_out=0))
    assert lines == [("info", "kNN is not measured: no image has a label")]


def test_a_job_that_does_not_want_knn_hears_nothing_about_it() -> None:
    assert not list(start_lines(None, None, has_labels=True, num_held_out=0))


def test_a_coarse_number_is_announced() -> None:
    coarse, fine = (list(start_lines(MEASURED, None, has_labels=True, num_held_out=count)) for count in (13, 50))
    assert coarse == [("info", "kNN is measured on 13 held-out images: each of them changes it by 7.7 points")]
    assert not fine


def test_features_below_raw_pixels_are_named_with_what_to_do() -> None:
    assert end_line({"knn_top1": 0.481}, {"knn_top1": 0.529}) == (
        "kNN 48.1 % is below that of raw pixels, 52.9 %: "
        "train longer (epochs), or start from pretrained weights (backbone_weights)"
    )


@pytest.mark.parametrize("found", [0.529, 0.52897, 0.6])
def test_features_that_are_not_visibly_below_raw_pixels_are_no_matter(found: float) -> None:
    assert end_line({"knn_top1": found}, {"knn_top1": 0.529}) is None
