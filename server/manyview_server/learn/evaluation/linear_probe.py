"""A linear classifier of features. It is trained alongside the network that makes them, and does not influence it.

Shapes: N rows, D feature, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from manyview_server.learn.evaluation.knn import CHUNK_LOGITS

MOMENTUM = 0.9
STATISTICS_MOMENTUM = 0.1
EPSILON = 1e-5
MAX_CLASSES = 10_000
"""The largest probe that a trainer makes: more labels than this are names of images rather than classes."""


class LinearProbe(nn.Module):
    """Softmax regression on detached features by SGD with momentum. The gradient is written out, so that no part of the
    probe enters an autograd graph. It starts at zero, which needs no randomness and for a convex problem is as good as
    any other start.

    Features are first scaled to mean 0 and variance 1, by the statistics of the batch in `learn` and by their running
    means in `rankings`, as in He et al., arXiv 2111.06377, appendix A.1. One learning rate then serves all methods,
    whatever the length of their features.
    """

    weight: Tensor  # (C, D)
    bias: Tensor  # (C,)
    weight_momentum: Tensor  # (C, D)
    bias_momentum: Tensor  # (C,)
    mean: Tensor  # (D,)
    variance: Tensor  # (D,)

    def __init__(self, feature_dim: int, num_classes: int, learning_rate: float) -> None:
        """
        Args:
            feature_dim: D.
            num_classes: C; `grow` can raise it.
            learning_rate: the peak learning rate.

        Raises:
            ValueError: no features, no classes, or a learning rate that is not above 0.
        """
        super().__init__()
        if feature_dim < 1 or num_classes < 1 or not learning_rate > 0:
            raise ValueError(
                f"feature_dim, num_classes and learning_rate must be above 0, "
                f"not {feature_dim}, {num_classes} and {learning_rate}"
            )
        self.learning_rate = learning_rate
        for name in ("weight", "weight_momentum"):
            self.register_buffer(name, torch.zeros(num_classes, feature_dim))
        for name in ("bias", "bias_momentum"):
            self.register_buffer(name, torch.zeros(num_classes))
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("variance", torch.ones(feature_dim))

    @property
    def num_classes(self) -> int:
        return len(self.weight)

    def grow(self, num_classes: int) -> None:
        """Raise the number of classes to at least `num_classes`. New classes start at zero."""
        more = max(0, num_classes - self.num_classes)
        for name in ("weight", "weight_momentum", "bias", "bias_momentum"):
            rows = getattr(self, name)
            setattr(self, name, torch.cat([rows, rows.new_zeros(more, *rows.shape[1:])]))

    @torch.no_grad()
    def learn(self, features: Tensor, labels: Tensor, accept: Tensor, factor: float = 1.0) -> None:
        """Take one step. Never waits for the device.

        Args:
            features: (N, D), of any float type.
            labels: (N,) int64 in [0, C). Rows with -1 count only for the scale of the features.
            accept: 0-d bool on the device. If it is false, nothing changes, bit for bit.
            factor: multiplies the peak learning rate.
        """
        features = features.float()
        labelled = labels >= 0  # (N,)
        count = labelled.sum()
        share = (labelled / count.clamp(min=1))[:, None]  # (N, 1): weights that give the mean over labelled rows
        mean, variance = (
            features.mean(dim=0),
            features.var(dim=0, correction=0),
        )  # over all rows, because few may have labels
        scaled = (features - mean) * (variance + EPSILON).rsqrt()

        logits = torch.addmm(self.bias, scaled, self.weight.T)  # (N, C)
        classes = torch.arange(self.num_classes, device=labels.device)
        error = (logits.softmax(dim=1) - (labels[:, None] == classes).float()) * share
        rate = self.learning_rate * factor
        accept = accept & (count > 0)
        for name, gradient in (("weight", error.T @ scaled), ("bias", error.sum(dim=0))):
            momentum = MOMENTUM * getattr(self, f"{name}_momentum") + gradient
            _keep(getattr(self, f"{name}_momentum"), momentum, accept)
            _keep(getattr(self, name), getattr(self, name) - rate * momentum, accept)
        for name, now in (("mean", mean), ("variance", variance)):
            _keep(getattr(self, name), torch.lerp(getattr(self, name), now, STATISTICS_MOMENTUM), accept)

    @torch.no_grad()
    def rankings(self, features: Tensor, best: int | None = None) -> Tensor:
        """Rank the classes of each row of features (N, D), the best first: (N, min(C, best)) int64."""
        scaled = (features.float() - self.mean) * (self.variance + EPSILON).rsqrt()
        chunks = torch.split(scaled, max(1, CHUNK_LOGITS // self.num_classes))
        logits = (torch.addmm(self.bias, chunk, self.weight.T) for chunk in chunks)
        return torch.cat([each.argsort(dim=1, descending=True, stable=True)[:, :best].clone() for each in logits])


def _keep(buffer: Tensor, value: Tensor, accept: Tensor) -> None:
    buffer.copy_(torch.where(accept, value, buffer))
