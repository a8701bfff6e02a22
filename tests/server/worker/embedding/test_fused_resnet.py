from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from manyview_server.learn import backbones
from manyview_server.worker.embedding.fused_resnet import FusedResNet, can_fuse, fuse_resnets
from manyview_server.worker.embedding.model_cache import fold_batch_norms

needs_onednn = pytest.mark.skipif(not can_fuse(torch.float32), reason="oneDNN does not fuse on this processor")


def folded(name: str, image_size: int, **how: object) -> nn.Module:
    """Return a ResNet as after training, with its batch norms folded."""
    torch.manual_seed(0)
    network = backbones.build(name, image_size=image_size, width=0.25, **how)  # type: ignore[arg-type]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                tensor.uniform_(-0.5, 1)
            module.running_var.uniform_(0.5, 2)
    network.eval().requires_grad_(False)
    fold_batch_norms(network)
    return network.to(memory_format=torch.channels_last)


def images(batch: int, size: int) -> torch.Tensor:
    return torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)


@needs_onednn
@pytest.mark.parametrize("batch", [1, 2, 5, 16])
@pytest.mark.parametrize(
    ("name", "size", "how"),
    [
        ("resnet9", 32, {}),
        ("resnet9", 33, {"stem": "small", "stem_relu": False}),
        ("resnet18", 64, {}),
        ("resnet50", 64, {}),
        ("resnet50", 24, {}),
    ],
)
@torch.inference_mode()
def test_a_fused_network_gives_the_features_of_the_network_it_was_made_from(
    name: str, size: int, how: dict[str, object], batch: int
) -> None:
    network = folded(name, size, **how)
    x = images(batch, size)
    expected, before = network(x), x.clone()
    fused = fuse_resnets(copy.deepcopy(network), size, torch.float32)
    assert isinstance(fused, FusedResNet)
    torch.testing.assert_close(fused(x), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(x, before), "its own input is not overwritten"
    assert torch.equal(fused(x), fused(x)), "the same images give the same bits"


@needs_onednn
@torch.inference_mode()
def test_a_resnet_inside_of_another_network_is_fused_there() -> None:
    network = nn.Sequential(folded("resnet9", 16), nn.Linear(128, 4)).eval()
    x = images(3, 16)
    expected = network(x)
    fused = fuse_resnets(network, 16, torch.float32)
    assert isinstance(fused.get_submodule("0"), FusedResNet)
    torch.testing.assert_close(fused(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not can_fuse(torch.bfloat16), reason="this processor has no bfloat16")
@torch.inference_mode()
def test_bfloat16_stays_as_near_to_float32_as_the_unfused_network() -> None:
    network = folded("resnet18", 64)
    x = images(4, 64)
    expected = network(x)
    plain = copy.deepcopy(network).bfloat16()(x.bfloat16()).float()
    fused = fuse_resnets(copy.deepcopy(network).bfloat16(), 64, torch.bfloat16)(x.bfloat16())
    assert fused.dtype is torch.bfloat16
    distance = (1 - torch.cosine_similarity(fused.float(), expected)).max()
    assert distance < max(1e-3, 2 * float((1 - torch.cosine_similarity(plain, expected)).max()))


@torch.inference_mode()
def test_a_type_that_cannot_be_fused_and_a_network_of_another_kind_stay_as_they_are() -> None:
    network = folded("resnet9", 16)
    assert fuse_resnets(network, 16, torch.float64) is network
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    assert fuse_resnets(other, 16, torch.float32) is other
