"""Adam with decoupled weight decay."""

from __future__ import annotations

import torch

from manyview_server.learn.optimizers.optimizer import Optimizer, ParameterGroup, Schedule, Update, in_memory_order

EPS = 1e-8


class AdamW(Optimizer):
    """AdamW (arXiv 1711.05101, algorithm 2), one fused pass for each group, like ``torch.optim.AdamW(fused=True)``.

    A step of ResNet-18 on one CPU core takes 49 ms. It takes 375 ms with ``torch._foreach`` operations and
    ``torch.where``.

    Each parameter counts its own accepted steps, on the device, in its state. Steps in which it has no gradient do not
    count.
    """

    def __init__(
        self,
        param_groups: list[ParameterGroup],
        peak_learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        *,
        schedule: Schedule | None = None,
        clip_norm: float | None = None,
    ) -> None:
        """
        Args:
            betas: share of the mean gradient, and of the mean squared gradient, that stays at each step, in [0, 1).
        """
        super().__init__(param_groups, peak_learning_rate, schedule=schedule, clip_norm=clip_norm)
        self.betas = betas
        for parameter in self.parameters:
            self.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
            }

    def _apply(self, update: Update) -> None:
        steps = [self.state[parameter]["step"] for parameter in update.params]
        torch._foreach_add_(steps, [1 - update.found_inf] * len(steps))
        torch._fused_adamw_(
            in_memory_order(update.params),
            in_memory_order(update.grads),
            in_memory_order(self.state[parameter]["exp_avg"] for parameter in update.params),
            in_memory_order(self.state[parameter]["exp_avg_sq"] for parameter in update.params),
            [],
            steps,
            lr=self.learning_rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=update.group["weight_decay"],
            eps=EPS,
            amsgrad=False,
            maximize=False,
            grad_scale=update.grad_scale,
            found_inf=update.found_inf,
        )
