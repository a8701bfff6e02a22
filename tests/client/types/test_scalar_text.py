from __future__ import annotations

import math

import pytest

from manyview._types import scalar_text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("loss", 1 / 3, "0.3333"),
        ("loss", math.inf, "inf"),
        ("knn_top1", 0.397, "39.7 %"),
        ("linear_top1", 0.5, "50.0 %"),
        ("data_wait_fraction", 0.004, "0.4 %"),
        ("memory_bytes", 9.29624e8, "930 MB"),
        ("step_ms", 12.34567, "12.35 ms"),
        ("step_ms", 3333.3, "3,333 ms"),
        ("images_per_second", 6.94444, "6.9 img/s"),
        ("rows_per_second", 12.345678, "12.35/s"),
        ("wait_seconds", 0.5, "0.5 s"),
        ("representation_std_ratio", 0.831, "0.83 of even"),
        ("skipped_steps", 3.0, "3"),
    ],
)
def test_a_value_has_the_unit_of_its_name(name: str, value: float, text: str) -> None:
    assert scalar_text.value(name, value) == text


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("knn_top1_k20_t0.07", "kNN top-1 k20 t0.07"),
        ("linear_top5", "linear top-5"),
        ("knn_top1_raw_pixels", "kNN raw pixels"),
        ("effective_rank", "effective rank"),
    ],
)
def test_a_label_is_what_people_call_it(name: str, label: str) -> None:
    assert scalar_text.label(name) == label
