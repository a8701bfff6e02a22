from __future__ import annotations

import pytest

from manyview_server.learn.schedules import cosine, linear, warmup_cosine


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.996), (1, 0.99612061), (5, 0.9983473), (8, 0.99987939), (9, 1.0), (10, 1.0)]
)
def test_cosine_has_the_reference_values(step: int, expected: float) -> None:
    assert cosine(step, 10, 0.996, 1.0) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.2), (4, 1.0), (5, 1.0), (6, 0.98747649), (19, 0.001), (20, 0.001)]
)
def test_warmup_cosine_has_the_reference_values(step: int, expected: float) -> None:
    assert warmup_cosine(step, 20, 5, 0.001) == pytest.approx(expected, abs=1e-8)


def test_the_last_step_arrives_exactly_whatever_the_length() -> None:
    for num_steps in (1, 2, 3, 100):
        assert cosine(num_steps - 1, num_steps, 0.3, 0.7) == 0.7
    assert warmup_cosine(99, 100, 10) == 0.0


def test_training_that_is_all_warmup_ends_at_its_peak() -> None:
    assert [warmup_cosine(step, 4, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_without_warmup_the_first_step_has_the_peak() -> None:
    assert warmup_cosine(0, 10, 0) == 1.0


def test_a_line_goes_from_start_to_exactly_the_end_and_stays() -> None:
    assert [linear(step, 5, 0.04, 0.07) for step in (0, 2, 4, 9)] == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert linear(0, 1, 0.04, 0.07) == 0.07
    assert linear(4, 5, 0.1, 0.7) == 0.7
