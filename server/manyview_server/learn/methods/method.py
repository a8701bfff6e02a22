"""What a trainer asks of a self-supervised method.

Shapes: V views, B batch, o pixels on a side of a view, D feature, P projection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from manyview_server.learn.encoder import Encoder
from manyview_server.learn.schedules import Moment

Feature = Literal["backbone", "projection"]

Views = Sequence[Tensor]
"""Normalised views (V, B, 3, o, o), one tensor for each size, in the order of the recipe."""


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """What one forward pass gives. All of it stays on the device."""

    loss: Tensor
    """0-d, with its graph."""
    representation: Tensor
    """(V'B, D) features of the views that the student saw, view by view, detached, for watching collapse."""
    projection: Tensor | None = None
    """(V'B, P) what the loss compares with its targets (a projection, or the prediction made of it), detached: it may
    collapse long before the features do. None where the loss is no comparison of vectors."""
    scalars: dict[str, Tensor] = field(default_factory=dict)
    """0-d tensors worth logging, by name. `chance_loss`: the loss of a network that tells nothing apart."""


class Method(nn.Module, ABC):
    """A network in training: an encoder, heads, a loss, and what else the method needs, all in its state_dict.

    A step is ``forward_loss``, backward, ``before_update``, the optimizer, ``after_step``; `learn.step.train_step`
    does all of it.
    """

    encoder: Encoder
    head: nn.Module
    """From features to the projections in which the loss is taken, where there are any."""
    projection_dim: int = 0
    """P; 0 without a projection head."""

    @abstractmethod
    def forward_loss(self, views: Views, image_ids: Tensor, moment: Moment) -> StepOutput:
        """The loss of a batch.

        Args:
            views: a tensor (V, B, 3, o, o) for each size.
            image_ids: (B,) int64, not negative.
            moment: for what changes over a training.
        """

    def before_update(self, moment: Moment) -> None:
        """What happens between backward and the optimizer: a parameter whose gradient is set to None rests."""

    def after_step(self, moment: Moment, accept: Tensor) -> None:
        """What follows the optimizer's update: the teacher moves, the bank takes this batch's keys.

        Args:
            moment: that of the step.
            accept: 0-d bool on the device; where false (the loss was not finite) nothing changes.
        """

    @property
    def chosen(self) -> dict[str, Any]:
        """Settings that were left open, as the network decided them."""
        return {}

    @torch.no_grad()
    def embed(self, images: Tensor, feature: Feature = "backbone") -> Tensor:
        """Features of normalised images (B, 3, H, W), in evaluation mode: (B, D), or (B, P) for ``"projection"``.

        Raises:
            ValueError: a projection, of a method without a head.
        """
        if feature == "projection" and not self.projection_dim:
            raise ValueError("this method has no projection head: its embedding is the backbone's")
        was_training = self.training
        self.eval()
        try:
            features: Tensor = self.encoder(images)
            return self.head(features) if feature == "projection" else features
        finally:
            self.train(was_training)
