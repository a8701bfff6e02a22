"""What a training job can be told of its optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from manyview_server.configuration import setting

PEAK_LEARNING_RATES = {
    "sgd": (0.06, 128),  # lightly's CIFAR-10 benchmarks
    "adamw": (5e-4, 256),  # DINO, arXiv 2104.14294, section 3.2
    "lars": (0.3, 256),  # SimCLR, arXiv 2002.05709, section 2.3
}
"""(rate, images): the rate at a batch of so many images; it grows linearly with the batch."""

WEIGHT_DECAYS = {
    "sgd": 5e-4,  # lightly's CIFAR-10 benchmarks
    "adamw": 0.04,  # DINO, arXiv 2104.14294, section 3.2
    "lars": 1e-6,  # SimCLR, arXiv 2002.05709, section 2.3
}


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """How the weights are updated: a linear warm-up, then a cosine decay of the learning rate."""

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
        "How much of the mean gradient, and of the mean squared one, stays at each step.",
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
        "Weight decay, not of norms, biases, tokens and position embeddings; null means 0.0005 for sgd, 0.04 for "
        "adamw, 0.000001 for lars.",
        minimum=0,
        maximum=1,
    )
    weight_decay_end: float | None = setting(
        None, "Where weight_decay arrives in the end, along a cosine; null leaves it constant.", minimum=0, maximum=1
    )
    clip_gradient_norm: float | None = setting(
        None,
        "Length to which longer gradients, of all parameters together, are shortened; null means none.",
        exclusive_minimum=0,
        maximum=1e6,
    )

    def peak_learning_rate(self, batch_size: int) -> float:
        """`learning_rate`, or by default one that grows linearly with the batch."""
        rate, images = PEAK_LEARNING_RATES[self.name]
        return rate * batch_size / images if self.learning_rate is None else self.learning_rate

    def first_weight_decay(self) -> float:
        """`weight_decay`, or by default the optimizer's."""
        return WEIGHT_DECAYS[self.name] if self.weight_decay is None else self.weight_decay

    def chosen(self, batch_size: int) -> dict[str, float]:
        """What was left open, as it was chosen."""
        return {
            "learning_rate": self.peak_learning_rate(batch_size),
            "weight_decay": self.first_weight_decay(),
        }
