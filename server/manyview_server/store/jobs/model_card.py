"""The model card of a checkpoint: how to build the network again, and how to prepare an image for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OLDER_CARDS: dict[str, Any] = {
    "embedding_dim": 0,
    "stem_relu": True,
    "patch_size": None,
    "transparency": "drop",
    "color_profile": "ignore",
}
"""The fields that model cards of older releases lack, with the values that hold for their models."""


class CheckpointIncompatible(ValueError):
    """A checkpoint is whole, but another release wrote it and this one cannot use it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """The network of a checkpoint and its input."""

    train_job: str
    step: int
    epoch: int
    method: str
    backbone: str
    backbone_width: float
    # The stem of a ResNet; "auto" for any other network.
    stem: str
    stem_relu: bool
    # The patch size of a vision transformer in pixels; None for any other network.
    patch_size: int | None
    # Width of the learned embedding after the backbone, 0 if there is no such embedding.
    embedding_dim: int
    # Width of the embeddings: of the backbone's features, or of the learned embedding.
    feature_dim: int
    # Width of the projection head, 0 if there is no head.
    projection_dim: int
    # The rule by which an image becomes RGB: what is done with transparent pixels, and with an ICC profile.
    transparency: str
    color_profile: str
    # Side in pixels that an image is resized to, and the channels' normalisation after scaling to 0..1.
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        """Return the card as JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ModelCard:
        """Read a card that `to_json` made, in this release or an older one.

        Raises:
            CheckpointIncompatible: the card lacks fields that every release wrote, or has fields of a newer release.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        whole = {**OLDER_CARDS, **values}
        if missing := sorted(names - set(whole)):
            raise CheckpointIncompatible(f"the model card lacks {', '.join(missing)}")
        if unknown := sorted(set(whole) - names):
            text = f"the model card was written by a newer release: {', '.join(unknown)} is not known here"
            raise CheckpointIncompatible(text)
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in whole.items()}
        return cls(**fields)
