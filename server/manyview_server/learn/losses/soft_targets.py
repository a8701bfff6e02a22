"""Cross-entropy of views with soft targets from other views.

Shapes: V views that predict, T views with a target, B batch, K outputs, R rows of one block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from manyview_server.learn.normalize import at_least_float32

BLOCK_VALUES = 1 << 17
"""Number of outputs processed at a time on a CPU: two float32 blocks are 1 MiB and stay in a core's cache."""


def swapped_cross_entropy(views: Sequence[Tensor], targets: Sequence[Tensor], temperature: float) -> Tensor:
    """Return the mean over the batch of -sum_t sum_{v != t} target_t . log softmax(view_v / temperature).

    Args:
        views: tensors (V', B, K) that have V views together, those with a target first and in the same order.
            Gradients reach them.
        targets: T tensors (B, K) in float32 at least, whose rows sum to 1. They are constants.
        temperature: divides the outputs.

    Returns:
        0-d, the sum over the pairs. It is computed in float32 at least.
    """
    if views[0].device.type == "cpu":
        loss: Tensor = _BlockwiseCrossEntropy.apply(temperature, len(targets), *targets, *views)
        return loss
    log_q = (at_least_float32(torch.cat(list(views))) / temperature).log_softmax(-1)  # (V, B, K)
    of_all = log_q.sum(0)  # (B, K): the sum over all v != t is this sum minus the term of t
    loss = log_q.new_zeros(())
    for t, target in enumerate(targets):
        of_others = of_all - log_q[t] if t < len(log_q) else of_all
        loss = loss - (target * of_others).sum(1).mean()
    return loss


class _BlockwiseCrossEntropy(torch.autograd.Function):
    """The same on a CPU, with no tensor of the size of all views but their gradients.

    With n_v targets for view v, whose sum is Q_v, and x_v = view_v / temperature, the loss is the mean of
    sum_v n_v logsumexp(x_v) - Q_v . x_v. Its gradient is (n_v softmax(x_v) - Q_v) / temperature. The gradient computes
    the softmax again, block by block, because that is cheaper than to write it to memory and to read it.
    """

    @staticmethod
    def forward(ctx: Any, temperature: float, num_targets: int, *tensors: Tensor) -> Tensor:
        targets, views = tensors[:num_targets], tensors[num_targets:]
        ctx.temperature, ctx.num_targets = temperature, num_targets
        ctx.save_for_backward(*tensors)
        total = targets[0].new_zeros(())
        of_all = sum(targets[1:], targets[0])  # (B, K)
        number = 0
        for part in views:
            for view in part:  # (B, K)
                num_others, wanted = _others(number, targets, of_all)
                for rows in _blocks(view):
                    x = at_least_float32(view[rows]) / temperature  # (R, K)
                    largest = x.amax(1)
                    lse = largest - x.softmax(1).amax(1).log()  # the largest probability is 1 / sum e^(x - largest)
                    total += num_others * lse.sum() - torch.dot(wanted[rows].flatten(), x.flatten())
                number += 1
        return total / len(of_all)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        targets, views = ctx.saved_tensors[: ctx.num_targets], ctx.saved_tensors[ctx.num_targets :]
        of_all = sum(targets[1:], targets[0])
        scale = grad_loss / (ctx.temperature * len(of_all))
        gradients, number = [], 0
        for part in views:
            gradient = torch.empty_like(part)
            for view, of_view in zip(part, gradient, strict=True):
                num_others, wanted = _others(number, targets, of_all)
                for rows in _blocks(view):
                    p = (at_least_float32(view[rows]) / ctx.temperature).softmax(1)
                    torch.mul(p.mul_(num_others).sub_(wanted[rows]), scale, out=p)
                    of_view[rows] = p
                number += 1
            gradients.append(gradient)
        return None, None, *(None for _ in targets), *gradients


def _others(number: int, targets: Sequence[Tensor], of_all: Tensor) -> tuple[int, Tensor]:
    """Return the number of targets of other views, and their sum (B, K)."""
    if number >= len(targets):
        return len(targets), of_all
    return len(targets) - 1, of_all - targets[number]


def _blocks(view: Tensor) -> list[slice]:
    step = max(1, BLOCK_VALUES // view.shape[1])
    return [slice(start, start + step) for start in range(0, len(view), step)]
