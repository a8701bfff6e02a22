"""The student predicts its teacher's output for other views of the same image.

Shapes: S views of the student, T views of the teacher, B batch, K outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manyview_server.learn.losses.soft_targets import swapped_cross_entropy
from manyview_server.learn.losses.temperature import check_temperature
from manyview_server.learn.normalize import at_least_float32


def dino(
    student: Tensor,
    teacher: Tensor,
    center: Tensor,
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> Tensor:
    """Cross-entropy between the teacher's centred, sharpened outputs and the student's (DINO, arXiv 2104.14294,
    equation 3 and algorithm 1).

    Args:
        student: (S, B, K) outputs. The views that the teacher saw come first and in the same order. Gradients reach
            them.
        teacher: (T, B, K) outputs for the global views, treated as constants.
        center: (K,). Call `update_center` after the loss.

    Returns:
        0-d mean over the batch and all pairs of a teacher's view and a different view of the student.

    Raises:
        ValueError: shapes that do not fit, a temperature below 0.001, or a single view, which leaves no pair.
    """
    _check(student, teacher, center)
    check_temperature(student_temperature, name="student_temperature")
    check_temperature(teacher_temperature, name="teacher_temperature")
    S, T = len(student), len(teacher)
    with torch.autocast(student.device.type, enabled=False):
        p = ((at_least_float32(teacher.detach()) - center.detach()) / teacher_temperature).softmax(-1)  # (T, B, K)
        return swapped_cross_entropy([student], p.unbind(), student_temperature) / (S * T - min(S, T))


@torch.no_grad()
def update_center(center: Tensor, teacher: Tensor, momentum: float = 0.9, accept: Tensor | None = None) -> None:
    """center = m center + (1 - m) mean of the teacher's outputs, in place (DINO, equation 4).

    Args:
        center: (K,), a persistent buffer of the method.
        teacher: (..., K) outputs, or their mean (K,): it is enough to keep the mean until the step is accepted.
        momentum: m, from 0 to 1.
        accept: 0-d bool on the device; if it is false, the center stays as it is, bit for bit.

    Raises:
        ValueError: outputs of another width.
    """
    if center.ndim != 1 or teacher.shape[-1:] != center.shape:
        raise ValueError(
            f"a center must be (K,) and outputs (..., K), not {tuple(center.shape)} and {tuple(teacher.shape)}"
        )
    mean = teacher.reshape(-1, len(center)).mean(0, dtype=center.dtype)
    moved = center * momentum + mean * (1 - momentum)
    center.copy_(moved if accept is None else torch.where(accept, moved, center))


def _check(student: Tensor, teacher: Tensor, center: Tensor) -> None:
    if student.ndim != 3 or 0 in student.shape or teacher.ndim != 3 or student.shape[1:] != teacher.shape[1:]:
        raise ValueError(
            f"outputs must be (S, B, K) and (T, B, K), not {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if center.shape != student.shape[2:]:
        raise ValueError(f"the center must be ({student.shape[2]},), not {tuple(center.shape)}")
    if len(teacher) == 0 or len(student) * len(teacher) == 1:
        raise ValueError("a view is not compared with itself: teacher and student together need at least two views")
