"""What a logged step tells of its features beside the loss, without a wait for the device.

Shapes: V views that the student saw, B batch, D feature, P projection.
"""

from __future__ import annotations

import math

from torch import Tensor

from manyview_server.learn.evaluation import collapse
from manyview_server.learn.step import StepResult

MAX_ROWS = 256
"""Of one view, for what grows with the square of them; also the highest effective rank that is told."""


def spread(result: StepResult) -> dict[str, Tensor]:
    """The standard deviation of the features and of the projections, and its ratio to that of evenly spread ones."""
    found: dict[str, Tensor] = {}
    for name, rows in (("representation", result.representation), ("projection", result.projection)):
        if rows is not None:
            std = collapse.representation_std(rows)
            found |= {f"{name}_std": std, f"{name}_std_ratio": std * math.sqrt(rows.shape[1])}
    return found


def geometry(result: StepResult, batch_size: int) -> dict[str, Tensor]:
    """Alignment of the views where there are several, and uniformity of the first one's features."""
    rows = result.representation
    views = rows.view(-1, batch_size, rows.shape[1])  # (V, B, D)
    found = {"uniformity": collapse.uniformity(views[0, :MAX_ROWS])}
    return found | ({"alignment": collapse.alignment(views)} if len(views) > 1 else {})


def products(result: StepResult, batch_size: int) -> Tensor:
    """Of the first view's features, what `collapse.effective_rank_of_gram` takes: its eigenvalues are the host's work,
    since a GPU would be waited for. Smaller than the features."""
    return collapse.gram(result.representation[: min(batch_size, MAX_ROWS)])
