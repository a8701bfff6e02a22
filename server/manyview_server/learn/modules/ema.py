"""The teacher: a copy of a network that follows it slowly (mean teacher, arXiv 1703.01780; MoCo, arXiv 1911.05722).

Only parameters follow the student. Buffers do not: a teacher's batch norms keep the statistics of the views that the
teacher saw.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def make_teacher(student: Network) -> Network:
    """Return an equal copy whose parameters get no gradients."""
    return copy.deepcopy(student).requires_grad_(False)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float, accept: Tensor | None = None) -> None:
    """teacher = momentum * teacher + (1 - momentum) * student (MoCo, equation 2).

    Args:
        momentum: m, from 0 (the teacher becomes the student) to 1 (it stays).
        accept: 0-d bool on the device. If it is false, the teacher keeps its values; only the sign of a zero may
            change, because 0 times the student is added.
    """
    ours: list[Tensor] = list(teacher.parameters())
    theirs: list[Tensor] = list(student.parameters())
    if accept is None:
        torch._foreach_lerp_(ours, theirs, 1 - momentum)
        return
    keep = torch.where(accept, momentum, 1.0)  # 0-d: a Python number here would wait for the device
    torch._foreach_mul_(ours, keep)
    torch._foreach_add_(ours, list(torch._foreach_mul(theirs, 1 - keep)))
