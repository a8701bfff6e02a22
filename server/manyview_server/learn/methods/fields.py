"""Settings that several methods have, each with its own default."""

from __future__ import annotations

from typing import Any

from manyview_server.configuration import setting


def temperature(default: float) -> Any:
    """Of a contrastive loss."""
    return setting(default, "Temperature of the contrastive loss.", minimum=0.01, maximum=100)


def projection_hidden_dim(default: int | None = None) -> Any:
    """Of the projection head."""
    described = "Width of the projection head's hidden layers; null means the features' width."
    return setting(default, described, minimum=1, maximum=65_536, fixed=True)


def projection_dim(default: int) -> Any:
    """Of the projection head."""
    described = "Width of the projection in which the loss is taken."
    return setting(default, described, minimum=1, maximum=65_536, fixed=True)


def projection_layers(default: int) -> Any:
    """Of the projection head."""
    return setting(default, "Linear layers of the projection head.", minimum=2, maximum=8, fixed=True)


def prediction_hidden_dim(default: int) -> Any:
    """Of the prediction head."""
    return setting(default, "Width of the prediction head's hidden layer.", minimum=1, maximum=65_536, fixed=True)


def memory_bank_size(default: int | None, *, minimum: int = 1) -> Any:
    """Of a bank of negatives; where `minimum` is 0 there may be none."""
    described = (
        "Keys of earlier batches that serve as negatives, or [keys, projection_dim]; null chooses it from the data "
    )
    described += "set, 0 means none." if minimum == 0 else "set."
    return setting(default, described, minimum=minimum, maximum=1_048_576, width="projection_dim", fixed=True)


def ema_momentum(default: float) -> Any:
    """Of the teacher, at the beginning."""
    described = "Share of the teacher that stays at each step, the rest being the student."
    return setting(default, described, minimum=0, maximum=1)


def ema_momentum_end(default: float | None) -> Any:
    """Of the teacher, in the end."""
    described = "Where ema_momentum arrives in the end, along a cosine; null leaves it constant."
    return setting(default, described, minimum=0, maximum=1, at_least="ema_momentum")


def projection_batch_norm(default: bool, remark: str) -> Any:
    """Of the projection head; `remark` says who has them."""
    return setting(default, f"Whether the projection head has batch norms; {remark}.", fixed=True)


def num_prototypes(default: int) -> Any:
    """Of a loss that compares what views say of prototypes, by cross-entropy."""
    return setting(default, "Directions to which projections are compared.", minimum=2, maximum=1_048_576, fixed=True)


def frozen_prototypes_epochs(default: float) -> Any:
    """Of prototypes that are learned."""
    described = "Epochs at the beginning in which the prototypes stay as they are."
    return setting(default, described, minimum=0, maximum=100_000)
