"""The settings of a training job's optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from manyview_server.configuration import setting

PEAK_LEARNING_RATES = {
    "sgd": (0.06, 128),  # lightly's CIFAR-10 benchmarks
    "adamw": (5e-4, 256),  # DINO, arXiv 2104.14294, section 3.2
    "lars": (0.3, 256),  # SimCLR, arXiv 2002.05709, section 2.3
}
"""(rate, images): the rate for a batch of that many images. It grows linearly with the batch."""

WEIGHT_DECAYS = {
    "sgd": 5e-4,  # lightly's CIFAR-10 benchmarks
    "adamw": 0.04,  # DINO, arXiv 2104.14294, section 3.2
    "lars": 1e-6,  # SimCLR, arXiv 2002.05709, section 2.3
}


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """The update of the weights, with a linear warm-up and then a cosine decay of the learning rate."""

    name: Literal["sgd", "adamw", "lars"] = setting(
        "sgd", "Stochastic gradient descent, Adam with decoupled weight decay, or SGD scaled by layer.", fixed=True
    )
    learning_rate: float | None = setting(
        None,
        "Peak learning rate; null means batch_size times 0.06 / 128 for sgd, 0.0005 / 256 for adamw, 0.3 / 256 for "
        "lars.",
        exclusive_minimum=0,
        maximum=100,
    )
    learning_rate_end_factor: float = setting(
        0.0, "Share of the peak learning rate at which training ends.", minimum=0, maximum=1
    )
    warmup_epochs: float = setting(0.0, "Epochs of linear warm-up; at most epochs.", minimum=0, maximum=1000)
    momentum: float = setting(
        0.9,
        "Momentum of the gradient.",
        minimum=0,
        exclusive_maximum=1,
        only={"name": ("sgd", "lars")},
    )
    betas: tuple[float, float] = setting(
        (0.9, 0.999),
        "Share of the mean gradient, and of the mean squared gradient, that stays at each step.",
        minimum=0,
        exclusive_maximum=1,
        only={"name": ("adamw",)},
    )
    trust_coefficient: float = setting(
        1e-3,
        "Length of a layer's update, before the learning rate, as a share of its weights' length.",
        exclusive_minimum=0,
        maximum=1,
        only={"name": ("lars",)},
    )
    weight_decay: float | None = setting(
        None,
        "Weight decay of all but norms, biases, tokens and position embeddings; null means 0.0005 for sgd, 0.04 for "
        "adamw, 0.000001 for lars.",
        minimum=0,
        maximum=1,
    )
    weight_decay_end: float | None = setting(
        None, "Weight decay at the end, reached along a cosine; null leaves it constant.", minimum=0, maximum=1
    )
    clip_gradient_norm: float | None = setting(
        None,
        "Length to which the gradient of all parameters together is shortened if it is longer; null means no limit.",
        exclusive_minimum=0,
        maximum=1e6,
    )

    def peak_learning_rate(self, batch_size: int) -> float:
        """Return `learning_rate`, or a default that grows linearly with the batch."""
        rate, images = PEAK_LEARNING_RATES[self.name]
        return rate * batch_size / images if self.learning_rate is None else self.learning_rate

    def first_weight_decay(self) -> float:
        """Return `weight_decay`, or the default of the optimizer."""
        return WEIGHT_DECAYS[self.name] if self.weight_decay is None else self.weight_decay

    def chosen(self, batch_size: int) -> dict[str, float]:
        """Return the values of the settings that can be left open."""
        return {
            "learning_rate": self.peak_learning_rate(batch_size),
            "weight_decay": self.first_weight_decay(),
        }
