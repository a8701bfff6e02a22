"""The tokens of vision transformers as outputs."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from manyview_server.learn import backbones
from manyview_server.learn.backbones import TOKEN_OUTPUTS, NoTokens, TokenOutput


@pytest.mark.parametrize("name", ["vit_tiny", "timm/vit_tiny_patch16_224"])
@torch.no_grad()
def test_the_outputs_are_parts_of_the_same_tokens(name: str) -> None:
    torch.manual_seed(0)
    backbone = backbones.build(name, image_size=64).eval()
    images = torch.randn(2, 3, 64, 64)
    found = {output: TokenOutput(backbone, output, 64) for output in TOKEN_OUTPUTS}
    rows = {output: network(images) for output, network in found.items()}
    tokens = rows["patch_tokens"].unflatten(1, (-1, 192))
    assert torch.equal(rows["class_token"], backbone(images)), "the pooled output of both is the class token"
    assert torch.equal(rows["patch_mean"], tokens.mean(dim=1))
    assert torch.equal(rows["class_and_patch_mean"], torch.cat([rows["class_token"], rows["patch_mean"]], dim=1))
    assert all(network.feature_dim == rows[output].shape[1] for output, network in found.items())
    assert [network.token_dim for network in found.values()] == [0, 0, 0, 192]
    assert not torch.allclose(tokens[:, 0], tokens[:, 1])


@pytest.mark.parametrize("name", ["vit_wee_patch16_reg1_gap_256", "vit_pwee_patch16_reg1_gap_256"])
@torch.no_grad()
def test_registers_are_no_patches_and_a_missing_class_token_is_said(name: str) -> None:
    torch.manual_seed(0)
    theirs: Any = timm.create_model(name, num_classes=0).eval()
    backbone = backbones.build(f"timm/{name}", image_size=256).eval()
    backbone.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 256, 256)
    tokens = TokenOutput(backbone, "patch_tokens", 256)(images).unflatten(1, (-1, backbone.feature_dim))
    torch.testing.assert_close(tokens, theirs.forward_features(images)[:, 1:])
    assert tokens.shape[1] == 256
    with pytest.raises(NoTokens, match="it has no class token"):
        TokenOutput(backbone, "class_token", 256)


@pytest.mark.parametrize("name", ["resnet9", "torchvision/resnet18", "timm/resnet10t", "torchvision/vit_b_32"])
def test_a_network_without_tokens_says_so(name: str) -> None:
    with pytest.raises(NoTokens, match="vision transformer"):
        TokenOutput(backbones.build(name, image_size=64), "patch_mean", 64)
