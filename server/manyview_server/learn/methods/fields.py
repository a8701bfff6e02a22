"""Settings that several methods have, each method with its own default."""

from __future__ import annotations

import copy
from typing import Any

from manyview_server.configuration import DefaultPreset, changed, setting
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views.presets import PRESETS, SMALL_BELOW


def views(paper: str) -> Any:
    """Make the recipe of views: by default the preset `paper`, or its `_small` one below `SMALL_BELOW` pixels."""
    small = f"{paper}_small"
    # Copies, so that settings made by hand show whether somebody chose the recipe: see `TrainSettings`.
    chosen = DefaultPreset(
        sibling="image_size", below=SMALL_BELOW, small=small, large=paper, small_value=copy.copy(PRESETS[small])
    )
    return changed(TrainSettings, "views", copy.copy(PRESETS[paper]), default_preset=chosen)


def temperature(default: float) -> Any:
    """Make the temperature of a contrastive loss."""
    return setting(default, "Temperature of the contrastive loss.", minimum=0.01, maximum=100)


def projection_hidden_dim(default: int | None = None) -> Any:
    """Make the hidden width of the projection head."""
    described = "Width of the projection head's hidden layers; null means the width of the features."
    return setting(default, described, minimum=1, maximum=65_536, fixed=True)


def projection_dim(default: int) -> Any:
    """Make the output width of the projection head."""
    described = "Width of the projection in which the loss is taken."
    return setting(default, described, minimum=1, maximum=65_536, fixed=True)


def projection_layers(default: int) -> Any:
    """Make the depth of the projection head."""
    return setting(default, "Linear layers of the projection head.", minimum=2, maximum=8, fixed=True)


def prediction_hidden_dim(default: int) -> Any:
    """Make the hidden width of the prediction head."""
    return setting(default, "Width of the prediction head's hidden layer.", minimum=1, maximum=65_536, fixed=True)


def memory_bank_size(default: int | None, *, minimum: int = 1) -> Any:
    """Make the size of a bank of negatives. If `minimum` is 0, a job may have no bank."""
    described = (
        "Keys of earlier batches that serve as negatives, or [keys, projection_dim]; null chooses it from the data "
    )
    described += "set, 0 means none." if minimum == 0 else "set."
    return setting(default, described, minimum=minimum, maximum=1_048_576, width="projection_dim", fixed=True)


def ema_momentum(default: float) -> Any:
    """Make the momentum with which the teacher starts."""
    described = "Share of the teacher that stays at each step; the rest comes from the student."
    return setting(default, described, minimum=0, maximum=1)


def ema_momentum_end(default: float | None) -> Any:
    """Make the momentum with which the teacher ends."""
    described = "Value of ema_momentum at the end of training, along a cosine; null keeps it constant."
    return setting(default, described, minimum=0, maximum=1, at_least="ema_momentum")


def projection_batch_norm(default: bool, remark: str) -> Any:
    """Make the switch for batch norms in the projection head; `remark` says which papers have them."""
    return setting(default, f"Whether the projection head has batch norms; {remark}.", fixed=True)


def num_prototypes(default: int) -> Any:
    """Make the number of prototypes to which a loss compares views."""
    return setting(
        default, "Number of directions to which projections are compared.", minimum=2, maximum=1_048_576, fixed=True
    )


def frozen_prototypes_epochs(default: float) -> Any:
    """Make the time for which learned prototypes stay as they are."""
    described = "First epochs, in which the prototypes do not change."
    return setting(default, described, minimum=0, maximum=100_000)
