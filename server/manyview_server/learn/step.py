"""One step of training: the part that a trainer and a notebook share.

Shapes: V views, B batch, D feature.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from manyview_server.learn.methods.method import Method, Views
from manyview_server.learn.optimizers import Optimizer
from manyview_server.learn.schedules import Moment

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step gives. The tensors stay on the device: reading one waits for it, so read them a step later."""

    loss: Tensor
    """0-d float."""
    accepted: Tensor
    """0-d bool: false where the loss or a gradient was not finite. Nothing of such a step remains."""
    gradient_norm: Tensor
    """0-d float, over all trained parameters, before clipping."""
    learning_rate: float
    """Of this step."""
    representation: Tensor
    """(V'B, D) features, detached."""
    projection: Tensor | None
    """(V'B, P) what the loss compares with its targets, detached."""
    scalars: dict[str, Tensor]
    """What else the method reports."""


def train_step(
    method: Method,
    optimizer: Optimizer,
    views: Views,
    image_ids: Tensor,
    moment: Moment,
    *,
    precision: Precision = "float32",
) -> StepResult:
    """Forward, backward, update, and what the method does after it. Never waits for the device.

    A loss or gradient that is not finite reaches neither weights, momentum, batch norm statistics, teacher nor bank.

    Args:
        method: in training mode.
        optimizer: made by `optimizers.build` for `method`.
        views: normalised, a tensor (V, B, 3, o, o) for each size.
        image_ids: (B,) int64.
        moment: what learning rate and weight decay, and what the method changes over a training, go by.
    """
    optimizer.begin_step(moment)
    statistics = _NormStatistics(method)

    with torch.autocast(image_ids.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        output = method.forward_loss(views, image_ids, moment)
    torch.autograd.backward(output.loss)
    method.before_update(moment)

    gradient_norm = torch.nn.utils.get_total_norm(
        parameter.grad for parameter in method.parameters() if parameter.grad is not None
    )
    accepted = torch.isfinite(output.loss.detach()) & torch.isfinite(gradient_norm)
    optimizer.step(accepted, gradient_norm)
    statistics.restore_unless(accepted)
    method.after_step(moment, accepted, output.carry)
    return StepResult(
        loss=output.loss.detach(),
        accepted=accepted,
        gradient_norm=gradient_norm,
        learning_rate=optimizer.learning_rate,
        representation=output.representation,
        projection=output.projection,
        scalars=output.scalars,
    )


class _NormStatistics:
    """The norms' running statistics before a step, which the forward pass changes before the loss is known."""

    def __init__(self, module: nn.Module) -> None:
        norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._NormBase)]
        self._kinds = [
            _Buffers([buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]),
            _Buffers([norm.num_batches_tracked for norm in norms]),
        ]

    def restore_unless(self, accepted: Tensor) -> None:
        for buffers in self._kinds:
            buffers.restore_unless(accepted)


class _Buffers:
    """Tensors of one type as they were; None stands for none."""

    def __init__(self, buffers: Iterable[Tensor | None]) -> None:
        self._buffers = [buffer.view(-1) for buffer in buffers if buffer is not None]
        self._before = self._flat()

    @torch.no_grad()
    def restore_unless(self, accepted: Tensor) -> None:
        if self._buffers:
            kept = torch.where(accepted, self._flat(), self._before)
            torch._foreach_copy_(self._buffers, list(torch.split(kept, [buffer.numel() for buffer in self._buffers])))

    def _flat(self) -> Tensor:
        """All of them in one tensor, so that saving and choosing are one kernel each and not one per layer."""
        return torch.cat(self._buffers) if self._buffers else torch.empty(0)
