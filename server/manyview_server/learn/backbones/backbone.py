"""The interface between a backbone and the methods that train it.

Shapes: B batch, H and W pixels, N patches, D feature width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class NoTokens(ValueError):
    """A network has no tokens of the wanted kind."""


class Backbone(nn.Module, ABC):
    """Maps normalised images (B, 3, H, W) to features (B, D). Users export its state_dict.

    The weights are initialised from torch's global generator. Seed it before you build a backbone.
    """

    feature_dim: int
    """D."""
    chosen: Mapping[str, Any] = {}
    """Settings that were left open, with the values that this network chose: its stem, the size of its patches."""
    left_aside: tuple[str, ...] = ()
    """Names of layers that weights from elsewhere may hold beyond this network: a classifier, a decoder."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, D)."""

    def tokens(self, images: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the class token (B, D), or None if the network has none, and the tokens of the patches (B, N, D), both
        after the last norm. Raises NoTokens if the network has no tokens."""
        raise NoTokens("it has no tokens, because it is not a vision transformer")

    def fitted(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert weights from elsewhere to those of this network: drop the layers that are `left_aside`."""
        layers = tuple(f"{name}." for name in self.left_aside)
        return {k: v for k, v in tensors.items() if k not in self.left_aside and not k.startswith(layers)}


def measured_feature_dim(network: nn.Module, image_size: int) -> int:
    """Measure D of a network by passing one black image through it. The network is left unchanged.

    Raises:
        ValueError: the network does not take images of that size (its own message, if it has one), or does not return
            (B, D).
    """
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            features = network(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError) as error:  # another library's network refuses the size
        raise ValueError(f"it does not take images of {image_size} x {image_size} pixels") from error
    finally:
        network.train(was_training)
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != 1:
        raise ValueError("it does not turn images (B, 3, H, W) into features (B, D)")
    return features.shape[1]
