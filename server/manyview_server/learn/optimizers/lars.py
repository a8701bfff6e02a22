"""Layer-wise adaptive rate scaling: SGD for large batches."""

from __future__ import annotations

import torch
from torch import Tensor

from manyview_server.learn.optimizers.optimizer import Optimizer, ParameterGroup, Schedule, Update
from manyview_server.learn.optimizers.sgd import apply_momentum, momentum_state

EPS = 1e-8


class Lars(Optimizer):
    """SGD that first scales the gradient of each tensor to a share of the length of its weights (LARS, arXiv
    1708.03888, equation 6 and algorithm 1).

    Norms and biases are neither scaled nor decayed, as in BYOL (arXiv 2006.07733, section 3.3).

    Differs from the paper: the learning rate multiplies the momentum buffer instead of being part of it, as in torch's
    SGD.
    """

    def __init__(
        self,
        param_groups: list[ParameterGroup],
        peak_learning_rate: float,
        momentum: float,
        trust_coefficient: float = 1e-3,
        *,
        schedule: Schedule | None = None,
        clip_norm: float | None = None,
    ) -> None:
        """
        Args:
            momentum: in [0, 1); 0 keeps no state.
            trust_coefficient: eta, the share of the weights' length.
        """
        super().__init__(param_groups, peak_learning_rate, schedule=schedule, clip_norm=clip_norm)
        self.momentum = momentum
        self.trust_coefficient = trust_coefficient
        if momentum > 0:
            self.state = {parameter: momentum_state(parameter) for parameter in self.parameters}

    def _apply(self, update: Update) -> None:
        if update.group["decays"]:
            update = update._replace(grads=self._scaled(update), grad_scale=None)
        apply_momentum(self, update, self.momentum, 0.0)

    def _scaled(self, update: Update) -> list[Tensor]:
        """Return eta |w| / (|g| + beta |w|) (g + beta w) for each tensor, or g unchanged if either length is 0."""
        params, grads, beta = update.params, update.grads, update.group["weight_decay"]
        shrink = 1.0 if update.grad_scale is None else 1 / update.grad_scale
        w = torch.stack(torch._foreach_norm(params))  # one entry for each tensor, as in all tensors below
        g = torch.stack(torch._foreach_norm(grads)) * shrink
        trusted = (w > 0) & (g > 0)
        ratio = torch.where(trusted, self.trust_coefficient * w / (g + beta * w + EPS), 1)
        decay = torch.where(trusted, beta * ratio, 0)
        scaled = list(torch._foreach_mul(params, list(decay.unbind())))  # in the parameters' memory layout
        torch._foreach_add_(scaled, torch._foreach_mul(grads, list((ratio * shrink).unbind())))
        return scaled
