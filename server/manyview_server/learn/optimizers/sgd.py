"""Stochastic gradient descent with momentum."""

from __future__ import annotations

import torch
from torch import Tensor

from manyview_server.learn.optimizers.optimizer import Optimizer, ParameterGroup, Schedule, Update, in_memory_order


class Sgd(Optimizer):
    """SGD with momentum and weight decay, one fused pass for each group, like ``torch.optim.SGD(fused=True)``."""

    def __init__(
        self,
        param_groups: list[ParameterGroup],
        peak_learning_rate: float,
        momentum: float,
        *,
        schedule: Schedule | None = None,
        clip_norm: float | None = None,
    ) -> None:
        """
        Args:
            momentum: in [0, 1); 0 keeps no state.
        """
        super().__init__(param_groups, peak_learning_rate, schedule=schedule, clip_norm=clip_norm)
        self.momentum = momentum
        if momentum > 0:
            self.state = {parameter: momentum_state(parameter) for parameter in self.parameters}

    def _apply(self, update: Update) -> None:
        apply_momentum(self, update, self.momentum, update.group["weight_decay"])


def momentum_state(parameter: Tensor) -> dict[str, Tensor]:
    """Return zeros in the memory layout of the parameter, as the fused kernel needs them."""
    return {"momentum_buffer": torch.zeros_like(parameter, requires_grad=False)}


def apply_momentum(optimizer: Optimizer, update: Update, momentum: float, weight_decay: float) -> None:
    """buffer = momentum * buffer + gradient + weight_decay * parameter; parameter -= learning_rate * buffer."""
    torch._fused_sgd_(
        in_memory_order(update.params),
        in_memory_order(update.grads),
        in_memory_order(optimizer.state[parameter]["momentum_buffer"] for parameter in update.params if momentum > 0),
        weight_decay=weight_decay,
        momentum=momentum,
        lr=optimizer.learning_rate,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=False,
        grad_scale=update.grad_scale,
        found_inf=update.found_inf,
    )
