"""The interface between a self-supervised method and the trainer.

Shapes: V views, B batch, o pixels on a side of a view, D feature, P projection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from manyview_server.learn.encoder import Encoder
from manyview_server.learn.schedules import Moment

Feature = Literal["backbone", "projection"]

Views = Sequence[Tensor]
"""Normalised views (V, B, 3, o, o), one tensor for each size, in the order of the recipe."""

Carry = Mapping[str, Tensor]
"""Tensors that a forward pass hands to `Method.after_step`, by name: `StepOutput.carry`."""


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """The results of one forward pass. All of them stay on the device."""

    loss: Tensor
    """0-d, with its graph."""
    representation: Tensor
    """(V'B, D) features of the views that the student saw, view by view, detached. A collapse is detected in them."""
    projection: Tensor | None = None
    """(V'B, P) vectors that the loss compares with its targets (projections, or predictions made from them), or the
    vectors that those are predicted from; detached. They can collapse long before the features do. None if the loss
    does not compare vectors."""
    scalars: dict[str, Tensor] = field(default_factory=dict)
    """0-d tensors worth logging, by name. `chance_loss` is the loss of a network that cannot distinguish images."""
    carry: Carry = field(default_factory=dict)
    """Detached tensors that `after_step` needs, such as the keys for a memory bank. The first axis counts images,
    or passes if a pass has only one such value. The carries of several passes (micro-batches whose gradients are added
    up) can therefore be concatenated along it, so that one call of `after_step` serves all of them."""


class Method(nn.Module, ABC):
    """A network in training: an encoder, heads, a loss, and anything else the method needs, all in its state_dict.

    A step is ``forward_loss``, backward, ``before_update``, the optimizer, ``after_step``; `learn.step.train_step`
    does all of it. A method keeps nothing of a forward pass on itself: results that are needed later travel in
    `StepOutput.carry`.
    """

    encoder: Encoder
    head: nn.Module
    """Maps features to the projections in which the loss is taken. Missing if the method has no projections."""
    projection_dim: int = 0
    """P; 0 without a projection head."""
    chosen: Mapping[str, Any] = {}
    """Settings that were left open, with the values that the network chose."""

    @abstractmethod
    def forward_loss(self, views: Views, image_ids: Tensor, moment: Moment) -> StepOutput:
        """Return the loss of a batch, and what belongs to it.

        Args:
            views: a tensor (V, B, 3, o, o) for each size.
            image_ids: (B,) int64, not negative.
            moment: place of the step in the training, for values that change over a training.
        """

    def before_update(self, moment: Moment) -> None:
        """Run between backward and the optimizer. A parameter whose gradient is set to None here is not updated."""

    def after_step(self, moment: Moment, accept: Tensor, carry: Carry) -> None:
        """Run after the optimizer's update: the teacher moves, the bank takes the keys of this batch.

        Args:
            moment: the same as in the step's `forward_loss`.
            accept: 0-d bool on the device. If it is false (the loss was not finite), nothing may change.
            carry: `StepOutput.carry` of the step, concatenated if there were several forward passes.
        """

    @torch.no_grad()
    def embed(self, images: Tensor, feature: Feature = "backbone") -> Tensor:
        """Embed normalised images (B, 3, H, W) in evaluation mode: (B, D), or (B, P) for ``"projection"``.

        Raises:
            ValueError: the projection of a method that has no head.
        """
        if feature == "projection" and not self.projection_dim:
            raise ValueError("this method has no projection head: embed with its backbone")
        was_training = self.training
        self.eval()
        try:
            features: Tensor = self.encoder(images)
            return self.head(features) if feature == "projection" else features
        finally:
            self.train(was_training)
