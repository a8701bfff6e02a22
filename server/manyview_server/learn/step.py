"""One step of training, for a trainer and for a notebook alike.

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
    """The result of a step. The tensors stay on the device: reading one waits for it, so read them a step later."""

    loss: Tensor
    """0-d float."""
    accepted: Tensor
    """0-d bool: false if the loss or a gradient was not finite. Such a step leaves no trace."""
    gradient_norm: Tensor
    """0-d float, over all trained parameters, before clipping."""
    learning_rate: float
    """The learning rate of this step."""
    representation: Tensor
    """(V'B, D) features, detached."""
    projection: Tensor | None
    """(V'B, P), detached: `StepOutput.projection`."""
    scalars: dict[str, Tensor]
    """Further values that the method reports, 0-d each."""


def train_step(
    method: Method,
    optimizer: Optimizer,
    views: Views,
    image_ids: Tensor,
    moment: Moment,
    *,
    precision: Precision = "float32",
) -> StepResult:
    """Run the forward pass, the backward pass, the update and the method's `after_step`. Never waits for the device.

    A loss or gradient that is not finite changes neither weights, momentum, batch norm statistics, teacher nor bank.

    Args:
        method: in training mode.
        optimizer: made by `optimizers.build` for `method`.
        views: normalised, a tensor (V, B, 3, o, o) for each size.
        image_ids: (B,) int64.
        moment: the place of the step in the training. Learning rate, weight decay and the method's schedules follow it.
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
    """Running statistics of the norms before a step: the forward pass changes them before the loss is known."""

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
    """Tensors of one type, with a copy of their values. None among them is left out."""

    def __init__(self, buffers: Iterable[Tensor | None]) -> None:
        self._buffers = [buffer.view(-1) for buffer in buffers if buffer is not None]
        self._before = self._flat()

    @torch.no_grad()
    def restore_unless(self, accepted: Tensor) -> None:
        if self._buffers:
            kept = torch.where(accepted, self._flat(), self._before)
            torch._foreach_copy_(self._buffers, list(torch.split(kept, [buffer.numel() for buffer in self._buffers])))

    def _flat(self) -> Tensor:
        """Join all of them in one tensor, so that saving and choosing take one kernel each and not one per layer."""
        return torch.cat(self._buffers) if self._buffers else torch.empty(0)
