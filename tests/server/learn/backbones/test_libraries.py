"""torchvision's and timm's networks: their names, their weights, their features."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import pytest
import timm
import timm.data
import torch
import torchvision
from torch import nn

from manyview_server.learn import backbones

TORCHVISION = {
    # One of each family that is not only large.
    "alexnet": 4096,
    "convnext_tiny": 768,
    "densenet121": 1024,
    "efficientnet_b0": 1280,
    "googlenet": 1024,
    "inception_v3": 2048,
    "maxvit_t": 512,
    "mobilenet_v2": 1280,
    "mobilenet_v3_small": 1024,
    "regnet_x_400mf": 400,
    "resnet18": 512,
    "shufflenet_v2_x0_5": 1024,
    "squeezenet1_1": 512,
    "swin_t": 768,
    "vit_b_32": 768,
}
TIMM = {
    "resnet18": 512,
    "vit_tiny_patch16_224": 192,
    "deit_tiny_distilled_patch16_224": 192,
    "convnext_atto": 320,
    "mobilenetv3_small_050": 1024,
    "swin_tiny_patch4_window7_224": 768,
    "xcit_nano_12_p16_224": 128,
    "regnetx_002": 368,
}
LONG = {"maxvit_t", "vit_b_32", "swin_tiny_patch4_window7_224"}


def long_ones_marked(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in names]


@pytest.mark.parametrize("name", long_ones_marked(TORCHVISION))
def test_a_network_of_torchvision_gives_what_its_last_layer_saw(name: str) -> None:
    torch.manual_seed(0)
    size = 96 if name in ("inception_v3",) else 64
    if name == "maxvit_t":
        size = 224
    backbone = backbones.build(f"torchvision/{name}", image_size=size).eval()
    assert backbone.feature_dim == TORCHVISION[name]
    options = {"vit_b_32": {"image_size": size}}.get(name, {})
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": False}
    theirs = torchvision.models.get_model(name, weights=None, **options)
    problems = theirs.load_state_dict(backbone.state_dict(), strict=False)
    (classifier,) = backbone.left_aside
    assert problems.unexpected_keys == []
    assert {key.rpartition(".")[0] for key in problems.missing_keys} == {classifier}
    images = torch.randn(2, 3, size, size)
    seen: list[torch.Tensor] = []
    theirs.get_submodule(classifier).register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    with torch.no_grad():
        theirs.eval()(images)
        features = backbone(images)
    expected = seen[0].relu().mean((2, 3)) if name.startswith("squeezenet") else seen[0]
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", long_ones_marked(TIMM))
def test_a_network_of_timm_is_timms_without_its_classifier(name: str) -> None:
    torch.manual_seed(0)
    backbone = backbones.build(f"timm/{name}", image_size=224).eval()
    assert backbone.feature_dim == TIMM[name]
    theirs = timm.create_model(name, num_classes=0)
    theirs.load_state_dict(backbone.state_dict())
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), theirs.eval()(images), rtol=1e-4, atol=1e-5)
    whole = timm.create_model(name)
    problems = whole.load_state_dict(backbone.fitted(whole.state_dict()), strict=False)
    assert {key.rpartition(".")[0] for key in problems.missing_keys} == set(backbone.left_aside)


def test_a_vision_transformer_of_timm_takes_small_images_and_two_sizes_and_keeps_its_weights_shapes() -> None:
    backbone = backbones.build("timm/vit_tiny_patch16_224", image_size=64)
    assert backbone.state_dict()["pos_embed"].shape == (1, 197, 192)
    for size in (64, 32, 224):
        assert backbone(torch.randn(2, 3, size, size)).shape == (2, 192)


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnet18"])
def test_nothing_tells_that_there_is_a_wrapper(name: str) -> None:
    inside = nn.ModuleDict({"backbone": backbones.build(name, image_size=32)})
    assert "backbone.conv1.weight" in inside.state_dict()
    assert "backbone.layer1.0.conv1.weight" in inside.state_dict()
    other = nn.ModuleDict({"backbone": backbones.build(name, image_size=32)})
    assert not torch.equal(other["backbone"].state_dict()["conv1.weight"], inside.state_dict()["backbone.conv1.weight"])
    other.load_state_dict(inside.state_dict())
    twin = copy.deepcopy(other["backbone"])
    twin.load_state_dict(inside["backbone"].state_dict())
    for network in (other["backbone"], twin):
        found, expected = network.state_dict(), inside["backbone"].state_dict()
        assert list(found) == list(expected)
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    problems = twin.load_state_dict({"conv1.weight": expected["conv1.weight"], "odd": torch.zeros(1)}, strict=False)
    assert problems.unexpected_keys == ["network.odd"]


@pytest.mark.parametrize(
    "name", ["torchvision/efficientnet_b0", "torchvision/swin_t", "timm/swin_tiny_patch4_window7_224"]
)
def test_in_training_nothing_is_drawn_so_that_a_resumed_job_is_the_same(name: str) -> None:
    network = backbones.build(name, image_size=64).train()
    images = torch.randn(2, 3, 64, 64)
    state = torch.get_rng_state()
    with torch.no_grad():
        assert torch.equal(network(images), network(images))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "size"),
    [("torchvision/inception_v3", 32), ("torchvision/vit_b_16", 40), ("timm/vit_tiny_patch16_224", 40)],
)
def test_an_image_size_that_a_network_does_not_take_is_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=rf"{name} does not take images of {size} x {size} pixels"):
        backbones.build(name, image_size=size)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_dinov2", "resnet50", "convnext_tiny"])
def test_images_are_prepared_as_timms_authors_do(name: str) -> None:
    stated = backbones.library_preprocessing(f"timm/{name}")
    timms: Any = timm.data
    theirs = timms.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    resize, crop, _, normalize = timms.create_transform(**theirs).transforms
    assert (stated.image_size, stated.resize_size) == (theirs["input_size"][1], resize.size)
    assert (*crop.size,) == (stated.image_size, stated.image_size)
    assert (stated.crop, stated.interpolation) == (theirs["crop_mode"], resize.interpolation.value)
    assert [*stated.mean, *stated.std] == pytest.approx([*normalize.mean.tolist(), *normalize.std.tolist()])
    assert stated.source.startswith(f"timm's weights {name}.")


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b3", "vit_b_16"])
def test_images_are_prepared_as_torchvisions_authors_do(name: str) -> None:
    stated = backbones.library_preprocessing(f"torchvision/{name}")
    theirs = torchvision.models.get_model_weights(name)["DEFAULT"].transforms()
    assert ([stated.image_size], [stated.resize_size]) == (theirs.crop_size, theirs.resize_size)
    assert (stated.crop, stated.interpolation) == ("center", theirs.interpolation.value)
    assert ([*stated.mean], [*stated.std]) == (theirs.mean, theirs.std)


def test_nobody_says_how_to_prepare_images_for_a_network_without_weights() -> None:
    with pytest.raises(ValueError, match="timm lists no weights for 'vit_base_patch32_plus_256'"):
        backbones.library_preprocessing("timm/vit_base_patch32_plus_256")
    with pytest.raises(ValueError, match="did you mean"):
        backbones.library_preprocessing("torchvision/resnet19")
