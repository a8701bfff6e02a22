"""Views attract; nothing repels.

Shapes: B batch, P projection.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from manyview_server.learn.normalize import UNIT_EPS, at_least_float32


def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean of -cos(prediction, target) (SimSiam, arXiv 2011.10566, equation 1).

    BYOL's loss (arXiv 2006.07733, equation 2) is 2 + 2 times this.

    Args:
        prediction, target: (B, P) of any length. Gradients reach both, so detach the side that must not move.

    Returns:
        0-d, from -1 to 1. A row of zeros counts as orthogonal to everything.

    Raises:
        ValueError: shapes that differ or are not (B, P).
    """
    if prediction.ndim != 2 or prediction.shape != target.shape or len(prediction) == 0:
        raise ValueError(f"both must be (B, P), not {tuple(prediction.shape)} and {tuple(target.shape)}")
    with torch.autocast(prediction.device.type, enabled=False):
        return -F.cosine_similarity(at_least_float32(prediction), at_least_float32(target), dim=1, eps=UNIT_EPS).mean()
