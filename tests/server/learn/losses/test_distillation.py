from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from manyview_server.learn.losses import dino, update_center
from support.learning.golden import value_and_gradient_norm, waves

A, B, C = waves(8, 16, 0.1), waves(8, 16, 1.3), waves(8, 16, 4.4)
TEACHER = torch.stack([A, B])


def algorithm_1(student: Tensor, teacher: Tensor, center: Tensor, student_T: float, teacher_T: float) -> float:
    """DINO's pseudocode with its loop over the crops: a view is not compared with itself."""
    total, terms = 0.0, 0
    for t, of_teacher in enumerate(teacher):
        for s, of_student in enumerate(student):
            if s != t:
                p = torch.softmax((of_teacher - center) / teacher_T, dim=1)
                q = torch.softmax(of_student / student_T, dim=1)
                total -= float((p * q.log()).sum(1).mean())
                terms += 1
    return total / terms


def test_dino_has_the_reference_values_over_two_calls() -> None:
    center = torch.zeros(16, dtype=torch.float64)
    for expected, expected_norm in ((12.35363106, 0.79642154), (12.40266258, 0.78770109)):
        value, gradient_norm = value_and_gradient_norm(
            lambda a: dino(torch.stack([a, B, C]), TEACHER, center, teacher_temperature=0.04), A
        )
        assert value == pytest.approx(expected, abs=1e-6)
        assert gradient_norm == pytest.approx(expected_norm, abs=1e-6)
        update_center(center, TEACHER, 0.9)


@pytest.mark.parametrize(("num_student", "num_teacher"), [(2, 2), (5, 2), (2, 1), (1, 2)])
def test_dino_is_algorithm_1(num_student: int, num_teacher: int) -> None:
    student = torch.stack([waves(3, 7, phase) for phase in range(num_student)])
    teacher = torch.stack([waves(3, 7, 2.5 * phase) for phase in range(num_teacher)])
    center = waves(1, 7, 0.7)[0]
    value = dino(student, teacher, center, student_temperature=0.3, teacher_temperature=0.2)
    assert value.item() == pytest.approx(algorithm_1(student, teacher, center, 0.3, 0.2), abs=1e-9)


def test_a_teacher_that_says_nothing_costs_the_students_log_of_the_outputs() -> None:
    flat = torch.zeros(2, 3, 5)
    assert dino(flat, flat, torch.zeros(5)).item() == pytest.approx(math.log(5), abs=1e-6)


def test_the_order_of_views_does_not_matter() -> None:
    center = torch.zeros(16, dtype=torch.float64)
    student = torch.stack([A, C])
    assert dino(student, TEACHER, center).item() == pytest.approx(
        dino(student.flip(0), TEACHER.flip(0), center).item(), abs=1e-12
    )


def test_an_output_that_all_views_share_is_taken_off_by_the_center() -> None:
    center = torch.zeros(16, dtype=torch.float64)
    shared = waves(1, 16, 0.3)[0]
    moved = dino(torch.stack([A, B]), TEACHER + shared, center + shared)
    assert moved.item() == pytest.approx(dino(torch.stack([A, B]), TEACHER, center).item(), abs=1e-9)


def test_gradients_reach_the_student_alone() -> None:
    student, teacher, center = (x.clone().requires_grad_() for x in (TEACHER, TEACHER, torch.zeros(16)))
    dino(student, teacher, center).backward()
    assert student.grad is not None
    assert student.grad.any()
    assert teacher.grad is None
    assert center.grad is None


def test_the_center_follows_the_mean_of_all_views_and_images() -> None:
    center = torch.ones(16, dtype=torch.float64)
    update_center(center, TEACHER, 0.75)
    torch.testing.assert_close(center, 0.75 + 0.25 * torch.cat([A, B]).mean(0))
    from_the_mean = torch.ones(16, dtype=torch.float64)
    update_center(from_the_mean, TEACHER.mean((0, 1)), 0.75)
    torch.testing.assert_close(from_the_mean, center)


def test_a_refused_step_leaves_the_center_bit_for_bit() -> None:
    center = torch.rand(4)
    before = center.clone()
    update_center(center, torch.full((2, 3, 4), float("nan")), 0.9, torch.tensor(False))
    assert torch.equal(center, before)
    update_center(center, torch.ones(2, 3, 4), 0.9, torch.tensor(True))
    torch.testing.assert_close(center, 0.9 * before + 0.1)


def test_a_center_of_half_precision_outputs_moves_in_float32() -> None:
    center = torch.zeros(4)
    update_center(center, torch.full((2, 500, 4), 0.1).bfloat16(), 0.0)
    torch.testing.assert_close(center, torch.full((4,), float(torch.tensor(0.1).bfloat16())))


def test_degenerate_batches_are_finite() -> None:
    for outputs in (torch.zeros(2, 1, 4), torch.full((2, 3, 4), 1e6), torch.randn(2, 3, 4) * 1e4, torch.ones(2, 2, 1)):
        outputs.requires_grad_()
        value = dino(outputs, outputs, torch.zeros(outputs.shape[2]))
        value.backward()
        assert value.isfinite()
        assert outputs.grad is not None
        assert outputs.grad.isfinite().all()


def test_it_computes_in_float32_inside_autocast_and_from_half_precision() -> None:
    half = TEACHER.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = dino(half, half.flip(0), torch.zeros(16))
    assert value.dtype == torch.float32
    expected = dino(half.double(), half.flip(0).double(), torch.zeros(16, dtype=torch.float64))
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_what_cannot_be_is_refused() -> None:
    center = torch.zeros(16)
    with pytest.raises(ValueError, match="a view is not compared with itself"):
        dino(A[None], A[None], center)
    with pytest.raises(ValueError, match="a view is not compared with itself"):
        dino(TEACHER, TEACHER[:0], center)
    with pytest.raises(ValueError, match=r"\(S, B, K\) and \(T, B, K\), not \(8, 16\) and \(2, 8, 16\)"):
        dino(A, TEACHER, center)
    with pytest.raises(ValueError, match=r"\(S, B, K\) and \(T, B, K\), not \(2, 8, 16\) and \(2, 7, 16\)"):
        dino(TEACHER, TEACHER[:, 1:], center)
    with pytest.raises(ValueError, match=r"the center must be \(16,\), not \(15,\)"):
        dino(TEACHER, TEACHER, center[1:])
    with pytest.raises(ValueError, match=r"teacher_temperature must be at least 0\.001, not 0"):
        dino(TEACHER, TEACHER, center, teacher_temperature=0)
    with pytest.raises(ValueError, match=r"student_temperature must be at least 0\.001, not nan"):
        dino(TEACHER, TEACHER, center, student_temperature=float("nan"))
    with pytest.raises(ValueError, match=r"\(K,\) and outputs \(..., K\), not \(15,\) and \(2, 8, 16\)"):
        update_center(center[1:], TEACHER)
