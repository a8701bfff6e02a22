"""Optimizers whose update can be refused on the device, without waiting for it: SGD, AdamW and LARS.

It may import what `learn` may import, and its neighbors `schedules`.

- `optimizer`: the parts that the three share. `sgd`, `adamw`, `lars`: one update rule each.
- `groups`: the parameters that decay, and those that do not. `settings`: the settings of an optimizer.
"""

from __future__ import annotations

from torch import nn

from manyview_server.learn.optimizers.adamw import AdamW
from manyview_server.learn.optimizers.groups import parameter_groups
from manyview_server.learn.optimizers.lars import Lars
from manyview_server.learn.optimizers.optimizer import Optimizer, ParameterGroup, Schedule
from manyview_server.learn.optimizers.settings import OptimizerSettings
from manyview_server.learn.optimizers.sgd import Sgd

__all__ = [
    "AdamW",
    "Lars",
    "Optimizer",
    "OptimizerSettings",
    "ParameterGroup",
    "Schedule",
    "Sgd",
    "build",
    "parameter_groups",
]


def build(settings: OptimizerSettings, module: nn.Module, batch_size: int) -> Optimizer:
    """Build the optimizer that `settings` describe for the trained parameters of `module`, which is already on its
    device."""
    weight_decay = settings.first_weight_decay()
    groups, peak = parameter_groups(module, weight_decay), settings.peak_learning_rate(batch_size)
    schedule = Schedule(
        warmup_epochs=settings.warmup_epochs,
        end_factor=settings.learning_rate_end_factor,
        weight_decay=None if settings.weight_decay_end is None else (weight_decay, settings.weight_decay_end),
    )
    clip_norm = settings.clip_gradient_norm
    match settings.name:
        case "sgd":
            return Sgd(groups, peak, settings.momentum, schedule=schedule, clip_norm=clip_norm)
        case "adamw":
            return AdamW(groups, peak, settings.betas, schedule=schedule, clip_norm=clip_norm)
        case "lars":
            trust = settings.trust_coefficient
            return Lars(groups, peak, settings.momentum, trust, schedule=schedule, clip_norm=clip_norm)
