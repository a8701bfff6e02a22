from __future__ import annotations

import dataclasses

import pytest

from manyview_server.store.jobs.model_card import CheckpointIncompatible, ModelCard

CARD = ModelCard(
    train_job="job",
    step=7,
    epoch=1,
    method="simclr",
    backbone="resnet9",
    backbone_width=0.5,
    stem="small",
    stem_relu=True,
    patch_size=None,
    embedding_dim=0,
    feature_dim=256,
    projection_dim=64,
    transparency="black",
    color_profile="srgb",
    image_size=32,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.2, 0.1),
)


def test_a_model_card_survives_json() -> None:
    values = CARD.to_json()
    assert ModelCard.from_json(values) == CARD
    assert set(values) == {field.name for field in dataclasses.fields(ModelCard)}


def test_a_model_card_of_an_older_release_is_completed() -> None:
    later = ("embedding_dim", "stem_relu", "patch_size", "transparency", "color_profile")
    whole = ModelCard.from_json({k: v for k, v in CARD.to_json().items() if k not in later})
    assert (whole.embedding_dim, whole.stem_relu, whole.patch_size) == (0, True, None)
    assert (whole.transparency, whole.color_profile) == ("drop", "ignore")
    assert whole.train_job == CARD.train_job


def test_a_model_card_that_cannot_be_read_is_of_an_incompatible_checkpoint() -> None:
    values = CARD.to_json()
    with pytest.raises(CheckpointIncompatible, match="newer release: color is not known here"):
        ModelCard.from_json({**values, "color": "red"})
    with pytest.raises(CheckpointIncompatible, match="lacks image_size, stem"):
        ModelCard.from_json({k: v for k, v in values.items() if k not in ("stem", "image_size")})
