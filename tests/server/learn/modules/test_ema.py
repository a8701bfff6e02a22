from __future__ import annotations

import torch
from torch import nn

from manyview_server.learn.modules.ema import make_teacher, update_teacher


def pair() -> tuple[nn.Module, nn.Module]:
    student = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    teacher = make_teacher(student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter))
    return teacher, student


def test_a_teacher_begins_equal_learns_nothing_itself_and_shares_no_memory() -> None:
    student = nn.Linear(3, 4)
    teacher = make_teacher(student)
    assert torch.equal(teacher.weight, student.weight)
    assert teacher.weight.data_ptr() != student.weight.data_ptr()
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_the_teacher_moves_by_the_equation_with_and_without_a_gate() -> None:
    for accept in (None, torch.tensor(True)):
        teacher, student = pair()
        before = [parameter.clone() for parameter in teacher.parameters()]
        update_teacher(teacher, student, 0.9, accept)
        for old, new, target in zip(before, teacher.parameters(), student.parameters(), strict=True):
            torch.testing.assert_close(new, 0.9 * old + 0.1 * target)


def test_a_closed_gate_leaves_the_teacher_bit_for_bit() -> None:
    teacher, student = pair()
    before = [parameter.clone() for parameter in teacher.parameters()]
    update_teacher(teacher, student, 0.9, torch.tensor(False))
    assert all(torch.equal(old, new) for old, new in zip(before, teacher.parameters(), strict=True))


def test_momentum_0_copies_the_student_and_momentum_1_keeps_the_teacher() -> None:
    teacher, student = pair()
    update_teacher(teacher, student, 1.0, torch.tensor(True))
    assert not torch.equal(teacher[0].weight, student[0].weight)
    update_teacher(teacher, student, 0.0, torch.tensor(True))
    assert torch.equal(teacher[0].weight, student[0].weight)


def test_buffers_stay_the_teachers_own() -> None:
    teacher, student = pair()
    student[1].running_mean.fill_(7)
    update_teacher(teacher, student, 0.0)
    assert (teacher[1].running_mean == 0).all()
