from __future__ import annotations

import copy
import re

import pytest
import torch

from manyview_server.learn import backbones
from manyview_server.learn.encoder import Encoder, build_encoder
from manyview_server.learn.methods import METHODS, build_method, resolve
from manyview_server.learn.methods.method import Moment  # type: ignore[attr-defined]
from manyview_server.learn.optimizers import Sgd, parameter_groups
from manyview_server.learn.step import train_step

SMALL = {"backbone": "resnet9", "backbone_width": 0.125, "image_size": 16, "batch_size": 8}
MULTI_CROP = {"preset": "dino"}


def test_without_a_learned_embedding_the_features_are_the_backbones() -> None:
    backbone = backbones.build("resnet9", width=0.125, stem="small").eval()
    encoder = Encoder(backbone)
    images = torch.randn(2, 3, 16, 16)
    assert encoder.feature_dim == backbone.feature_dim
    assert torch.equal(encoder(images), backbone(images))
    assert {name.split(".")[0] for name in encoder.state_dict()} == {"backbone"}


def test_a_learned_embedding_is_a_linear_map_of_the_backbones_features() -> None:
    backbone = backbones.build("resnet9", width=0.125, stem="small").eval()
    encoder = Encoder(backbone, 5)
    images = torch.randn(2, 3, 16, 16)
    assert encoder.feature_dim == 5
    assert encoder.reduction is not None
    torch.testing.assert_close(encoder(images), backbone(images) @ encoder.reduction.weight.T + encoder.reduction.bias)


def test_small_views_that_the_backbone_does_not_take_are_refused_by_name() -> None:
    """`resolve` refuses such a patch size, too: this is the encoder's own check."""
    settings = resolve(
        "dino", {**SMALL, "backbone": "vit_tiny", "image_size": 28, "patch_size": 4, "views": MULTI_CROP}
    )
    message = (
        "views.pipelines: backbone 'vit_tiny' for an image_size of 28 pixels takes no views of 12: image_size: 12 "
        "pixels are no multiple of patch_size 7; nearest: 7 or 14"
    )
    unchecked = copy.copy(settings)
    object.__setattr__(unchecked, "patch_size", 7)  # `replace` would check it
    with pytest.raises(ValueError, match=re.escape(message)):
        build_encoder(unchecked)
    assert build_encoder(settings).feature_dim == 64


@pytest.mark.parametrize("name", [name for name in ("simclr", "moco", "byol") if name in METHODS])
def test_the_learned_embedding_is_what_a_method_trains_and_embeds_with(name: str) -> None:
    method = build_method(resolve(name, {**SMALL, "embedding_dim": 6}), 100)
    assert method.encoder.reduction is not None
    before = method.encoder.reduction.weight.clone()
    views = [torch.randn(2, 8, 3, 16, 16)]
    optimizer = Sgd(parameter_groups(method, 0.0), 0.1, momentum=0.9)
    for step in range(2):
        result = train_step(method, optimizer, views, torch.arange(8) + 8 * step, Moment(step=step, total_steps=4))
    assert result.representation.shape[1] == 6
    assert method.embed(torch.randn(3, 3, 16, 16)).shape == (3, 6)
    assert not torch.equal(before, method.encoder.reduction.weight)
