"""The base of the optimizers: groups of parameters, schedules, clipping, and updates that can be refused.

The layout is that of ``torch.optim`` (`param_groups`, and `state` by parameter), and so is the arithmetic of those that
torch has. The classes of ``torch.optim`` are not used: constructing one imports the compiler, which costs 3 to 7
CPU-seconds at the start of each job for nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from manyview_server.learn.schedules import Moment, cosine, warmup_cosine


class ParameterGroup(TypedDict):
    """Parameters that are treated alike."""

    params: list[Tensor]
    weight_decay: float
    """The weight decay of the next step."""
    decays: bool
    """False for norms, biases, tokens and position embeddings: they never decay, and LARS does not scale them."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate and weight decay over a training."""

    warmup_epochs: float = 0.0
    """Length of the linear rise to the peak."""
    end_factor: float = 0.0
    """Learning rate of the last step as a share of the peak. It falls to there along half a cosine."""
    weight_decay: tuple[float, float] | None = None
    """Weight decay of the first and of the last step, along half a cosine. None leaves the groups as they are."""

    def learning_rate_factor(self, moment: Moment) -> float:
        """Return the factor of the peak. A training of only warm-up steps, or of one step, ends with its peak."""
        if moment.total_steps == 1:
            return 1.0  # otherwise the only step would be the end of the schedule
        warmup_steps = min(moment.total_steps, round(self.warmup_epochs * moment.steps_per_epoch))
        return warmup_cosine(moment.step, moment.total_steps, warmup_steps, self.end_factor)

    def weight_decay_at(self, moment: Moment) -> float | None:
        """Return the weight decay of the groups that decay, or None to leave it as it is."""
        return None if self.weight_decay is None else cosine(moment.step, moment.total_steps, *self.weight_decay)


class Update(NamedTuple):
    """The arguments of one step for the parameters of one group that have a gradient."""

    group: ParameterGroup
    params: list[Tensor]
    grads: list[Tensor]
    found_inf: Tensor
    """0-d float32 on the device, 1 if the step is refused. It is the flag that loss scaling uses for overflow: the
    fused kernels then leave weights and state unchanged."""
    grad_scale: Tensor | None
    """0-d float32 on the device: the gradients must be divided by it. None means 1."""


def in_memory_order(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return the tensors, those of a CPU in channels_last as contiguous views of the same memory.

    torch's fused kernels for a CPU copy each gradient that is not contiguous, and then do not use the copy.
    """
    return [tensor.permute(0, 2, 3, 1) if _is_reordered(tensor) else tensor for tensor in tensors]


def _is_reordered(tensor: Tensor) -> bool:
    is_reordered = tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
    return is_reordered and tensor.device.type == "cpu"


class Optimizer(ABC):
    """Updates parameters from their gradients. Never waits for the device.

    All state exists from the start: a first step that is refused leaves nothing uninitialised, and a checkpoint holds
    the same tensors at any step. Move the parameters to their device before you build an optimizer.
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
            param_groups: from `parameter_groups`.
            peak_learning_rate: the schedule multiplies it.
            clip_norm: the gradient of all parameters together is shortened to this length if it is longer.
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
        """Set learning rate and weight decay for the step at `moment`, and drop the gradients of the previous step."""
        self.learning_rate = self.peak_learning_rate * self.schedule.learning_rate_factor(moment)
        weight_decay = self.schedule.weight_decay_at(moment)
        for group in self.param_groups:
            if group["decays"] and weight_decay is not None:
                group["weight_decay"] = weight_decay
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self, accept: Tensor, gradient_norm: Tensor | None = None) -> None:
        """Update the parameters if `accept` (0-d bool, on the device) is true. Otherwise weights and state stay, bit
        for bit.

        Parameters without a gradient are left out. Afterwards the values of the gradients are undefined.

        Args:
            gradient_norm: 0-d, the length of all gradients together; needed if they are clipped.
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
