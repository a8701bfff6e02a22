"""What the optimizers share: groups of parameters, schedules, clipping, and updates that can be refused.

Their layout is that of ``torch.optim`` (`param_groups`, and `state` by parameter), and so is their arithmetic where
torch has them. Its classes are left aside: constructing one imports the compiler, 3 to 7 CPU-seconds at the start of
each job, for nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from manyview_server.learn.schedules import Moment, cosine, warmup_cosine


class ParameterGroup(TypedDict):
    """Parameters that are treated alike."""

    params: list[Tensor]
    weight_decay: float
    """Of the coming step."""
    decays: bool
    """False for norms, biases, tokens and position embeddings: they never decay, and LARS does not scale them."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate and weight decay over a training."""

    warmup_epochs: float = 0.0
    """Of a linear rise to the peak."""
    end_factor: float = 0.0
    """Where the learning rate arrives at the last step, along half a cosine, as a share of the peak."""
    weight_decay: tuple[float, float] | None = None
    """From the first step to the last along half a cosine; None leaves it as the groups have it."""

    def learning_rate_factor(self, moment: Moment) -> float:
        """What the peak is multiplied by. A training of nothing but warm-up, or of one step, ends with its peak."""
        if moment.total_steps == 1:
            return 1.0  # else it would be at the end of its schedule before it began
        warmup_steps = min(moment.total_steps, round(self.warmup_epochs * moment.steps_per_epoch))
        return warmup_cosine(moment.step, moment.total_steps, warmup_steps, self.end_factor)

    def weight_decay_at(self, moment: Moment) -> float | None:
        """What the groups that decay are set to, if they are."""
        return None if self.weight_decay is None else cosine(moment.step, moment.total_steps, *self.weight_decay)


class Update(NamedTuple):
    """What one step does with one group's parameters that have a gradient."""

    group: ParameterGroup
    params: list[Tensor]
    grads: list[Tensor]
    found_inf: Tensor
    """0-d float32 on the device, 1 where the step is refused: by this flag, which loss scaling uses for overflow, the
    fused kernels leave weights and state as they are."""
    grad_scale: Tensor | None
    """0-d float32 on the device, what gradients are to be divided by; None means 1."""


class Optimizer(ABC):
    """Updates parameters from their gradients. Never waits for the device.

    All state is there from the beginning: a first step that is refused leaves nothing uninitialised, and a checkpoint
    holds the same tensors at any step. Put the parameters on their device before.
    """

    def __init__(
        self,
        param_groups: list[ParameterGroup],
        peak_learning_rate: float,
        *,
        schedule: Schedule | None = None,
        clip_norm: float | None = None,
    ) -> None:
        """
        Args:
            param_groups: as `parameter_groups` makes them.
            peak_learning_rate: what the schedule multiplies.
            clip_norm: longer gradients, all taken together, are shortened to this length.
        """
        self.param_groups = param_groups
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self.peak_learning_rate = peak_learning_rate
        self.learning_rate = peak_learning_rate
        self.schedule = Schedule() if schedule is None else schedule
        self.clip_norm = clip_norm

    @property
    def parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def begin_step(self, moment: Moment) -> None:
        """Learning rate and weight decay of the step at `moment`; gradients of the one before are dropped."""
        self.learning_rate = self.peak_learning_rate * self.schedule.learning_rate_factor(moment)
        weight_decay = self.schedule.weight_decay_at(moment)
        for group in self.param_groups:
            if group["decays"] and weight_decay is not None:
                group["weight_decay"] = weight_decay
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self, accept: Tensor, gradient_norm: Tensor | None = None) -> None:
        """One update where `accept` (0-d bool, on the device) holds; else weights and state stay, bit for bit.

        Parameters without a gradient are left out. The gradients' values afterwards are not defined.

        Args:
            gradient_norm: 0-d, the length of all gradients together; needed where they are clipped.
        """
        for update in self._updates(accept, gradient_norm):
            self._apply(update)

    @abstractmethod
    def _apply(self, update: Update) -> None: ...

    def _updates(self, accept: Tensor, gradient_norm: Tensor | None) -> Iterator[Update]:
        found_inf = (~accept).to(torch.float32)
        grad_scale = None
        if self.clip_norm is not None:
            assert gradient_norm is not None, "clipping needs the norm"
            grad_scale = (gradient_norm / self.clip_norm).clamp_min(1).to(torch.float32)
        for group in self.param_groups:
            params = [parameter for parameter in group["params"] if parameter.grad is not None]
            if params:
                grads = [parameter.grad for parameter in params if parameter.grad is not None]
                yield Update(group, params, grads, found_inf, grad_scale)
