"""What a method asks of a backbone.

Shapes: B batch, H and W pixels, D feature width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """Normalised images (B, 3, H, W) to features (B, D). What its state_dict holds is what users export.

    Initialised from torch's global generator, which whoever builds it seeds.
    """

    feature_dim: int
    """D."""
    chosen: Mapping[str, Any] = {}
    """Settings that were left open, as this network has them: its stem, the size of its patches."""
    left_aside: tuple[str, ...] = ()
    """What weights from elsewhere have beyond this network, by name: a classifier, a decoder."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Features (B, D)."""

    def fitted(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights from elsewhere as this network takes them: without what is `left_aside`."""
        layers = tuple(f"{name}." for name in self.left_aside)
        return {k: v for k, v in tensors.items() if k not in self.left_aside and not k.startswith(layers)}


def measured_feature_dim(network: nn.Module, image_size: int) -> int:
    """D of a network that does not say so: it is shown one black image. Nothing of the network changes.

    Raises:
        ValueError: it does not take images of that size, in its own words where it has some, or does not give (B, D).
    """
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            features = network(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError) as error:  # of another library
        raise ValueError(f"it does not take images of {image_size} x {image_size} pixels") from error
    finally:
        network.train(was_training)
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != 1:
        raise ValueError("it does not turn images (B, 3, H, W) into features (B, D)")
    return features.shape[1]
