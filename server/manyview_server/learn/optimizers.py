"""Stochastic gradient descent whose update can be refused on the device, without waiting for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from manyview_server.learn.schema import setting


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """Stochastic gradient descent with momentum, a linear warm-up and a cosine decay to zero."""

    name: Literal["sgd"] = setting("sgd", "Optimizer.")
    learning_rate: float | None = setting(
        None, "Peak learning rate; null means 0.06 x batch_size / 128.", exclusive_minimum=0, maximum=100
    )
    momentum: float = setting(0.9, "Momentum of the gradient.", minimum=0, exclusive_maximum=1)
    weight_decay: float = setting(5e-4, "Weight decay, not applied to norms and biases.", minimum=0, maximum=1)
    warmup_epochs: float = setting(0.0, "Epochs of linear warm-up; at most epochs.", minimum=0, maximum=1000)

    def peak_learning_rate(self, batch_size: int) -> float:
        """`learning_rate`, or by default one that grows linearly with the batch."""
        return 0.06 * batch_size / 128 if self.learning_rate is None else self.learning_rate


class Sgd:
    """SGD with momentum and weight decay, all parameters of a group in one fused pass.

    The arithmetic and the layout (`param_groups`, `state`) are those of ``torch.optim.SGD(fused=True)``, whose kernel
    this calls. Its class is left aside because constructing one imports the compiler: 3 to 7 CPU-seconds at the start
    of each job, for nothing.

    Momentum is there, as zeros, from the beginning: a first step that is refused leaves nothing uninitialised, and a
    checkpoint holds the same tensors at any step. Put the parameters on their device before.
    """

    def __init__(self, param_groups: list[dict[str, Any]], peak_learning_rate: float, momentum: float) -> None:
        """
        Args:
            param_groups: as `parameter_groups` makes them, with ``"params"`` and ``"weight_decay"``.
            peak_learning_rate: what `set_learning_rate` multiplies.
            momentum: in [0, 1); 0 keeps no state.
        """
        self.param_groups = param_groups
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self.peak_learning_rate = peak_learning_rate
        self.learning_rate = peak_learning_rate
        self.momentum = momentum
        if momentum > 0:
            for parameter in self.parameters:
                self.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter, requires_grad=False)}

    @property
    def parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def set_learning_rate(self, factor: float) -> None:
        """The learning rate of the next steps: `factor` times the peak."""
        self.learning_rate = self.peak_learning_rate * factor

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, accept: Tensor) -> None:
        """One update where `accept` (0-d bool, on the device) holds; else weights and momentum stay, bit for bit.

        The decision is taken inside the kernel, by the flag that loss scaling uses for overflow. Parameters without a
        gradient are left out.
        """
        found_inf = (~accept).to(torch.float32)
        for group in self.param_groups:
            params = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not params:
                continue
            torch._fused_sgd_(
                params,
                [parameter.grad for parameter in params],
                [self.state[parameter]["momentum_buffer"] for parameter in params] if self.momentum > 0 else [],
                weight_decay=group["weight_decay"],
                momentum=self.momentum,
                lr=self.learning_rate,
                dampening=0.0,
                nesterov=False,
                maximize=False,
                is_first_step=False,
                found_inf=found_inf,
            )


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trained parameters in two groups: weights, which decay, and norms and biases (one axis), which do not."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


def build(settings: OptimizerSettings, module: nn.Module, batch_size: int) -> Sgd:
    """The optimizer that `settings` describe, for the trained parameters of `module`, which is on its device."""
    groups = parameter_groups(module, settings.weight_decay)
    return Sgd(groups, settings.peak_learning_rate(batch_size), settings.momentum)
