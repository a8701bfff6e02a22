"""The scalars about its features that a logged step reports beside the loss. Nothing here waits for the device.

Shapes: V views that the student saw, B batch, D feature, P projection.
"""

from __future__ import annotations

import math

from torch import Tensor

from manyview_server.learn.evaluation import collapse
from manyview_server.learn.step import StepResult

MAX_ROWS = 256
"""The most rows of a view that enter costs growing with their square. No effective rank is higher than this."""


def spread(result: StepResult) -> dict[str, Tensor]:
    """Return the standard deviation of features and projections, and its ratio to that of evenly spread ones."""
    scalars: dict[str, Tensor] = {}
    for name, rows in (("representation", result.representation), ("projection", result.projection)):
        if rows is not None:
            std = collapse.representation_std(rows)
            scalars |= {f"{name}_std": std, f"{name}_std_ratio": std * math.sqrt(rows.shape[1])}
    return scalars


def geometry(result: StepResult, batch_size: int) -> dict[str, Tensor]:
    """Return the uniformity of the first view's features and, if there are several views, their alignment."""
    rows = result.representation
    views = rows.view(-1, batch_size, rows.shape[1])  # (V, B, D)
    scalars = {"uniformity": collapse.uniformity(views[0, :MAX_ROWS])}
    return scalars | ({"alignment": collapse.alignment(views)} if len(views) > 1 else {})


def gram(result: StepResult, batch_size: int) -> Tensor:
    """Return the Gram matrix of the first view's features, for `collapse.effective_rank_of_gram`.

    Its eigenvalues are left to the host: on a GPU they would be waited for. It is smaller than the features.
    """
    return collapse.gram(result.representation[: min(batch_size, MAX_ROWS)])
