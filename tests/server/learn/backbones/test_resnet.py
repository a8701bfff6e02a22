from __future__ import annotations

import pytest
import torch
import torchvision

from manyview_server.learn import backbones


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "resnet50", "resnet101", pytest.param("resnet152", marks=pytest.mark.long)]
)
def test_a_state_dict_loads_into_torchvision_and_gives_the_same_features(name: str) -> None:
    torch.manual_seed(0)
    ours = backbones.build(name, stem="imagenet").eval()
    theirs = torchvision.models.get_model(name, weights=None)
    problems = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert set(problems.missing_keys) == {"fc.weight", "fc.bias"}
    assert problems.unexpected_keys == []

    theirs.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs.eval()(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    # lightly's small-image networks with ten classes have 10 (D + 1) more.
    [("resnet9", 4_903_242), ("resnet18", 11_173_962), ("resnet34", 21_282_122), ("resnet50", 23_520_842)],
)
def test_the_small_stem_gives_the_networks_of_the_cifar_benchmarks(name: str, num_parameters: int) -> None:
    backbone = backbones.build(name, stem="small")
    ours = sum(parameter.numel() for parameter in backbone.parameters())
    assert ours + 10 * (backbone.feature_dim + 1) == num_parameters


@pytest.mark.parametrize("stem", backbones.STEMS)
@pytest.mark.parametrize("size", [(8, 8), (33, 64), (96, 40)])
def test_images_of_any_size_become_features_of_the_stated_width(stem: backbones.Stem, size: tuple[int, int]) -> None:
    backbone = backbones.build("resnet9", width=0.25, stem=stem)
    assert backbone(torch.randn(2, 3, *size)).shape == (2, backbone.feature_dim)


def test_the_small_stem_keeps_the_resolution_and_its_relu() -> None:
    backbone = backbones.build("resnet9", width=0.25, stem="small")
    seen: list[torch.Tensor] = []
    backbone.layer1.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    backbone(torch.randn(2, 3, 32, 32))
    assert seen[0].shape[2:] == (32, 32)
    assert (seen[0] >= 0).all()


def test_width_multiplies_the_channels_in_multiples_of_eight() -> None:
    assert backbones.build("resnet9", width=0.5).feature_dim == 256
    assert backbones.build("resnet50", width=0.5).feature_dim == 1024
    assert backbones.build("resnet9", width=0.01).feature_dim == 8
    assert backbones.build("resnet9", width=0.3).conv1.out_channels == 16


def test_features_depend_on_every_pixel_and_channel() -> None:
    backbone = backbones.build("resnet9", width=0.25, stem="small")
    images = torch.randn(2, 3, 16, 16, requires_grad=True)
    backbone(images).square().sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).all()


def test_what_is_out_of_range_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"unknown stem 'large'; known: auto, imagenet, small"):
        backbones.build("resnet9", stem="large")  # type: ignore[arg-type]
    for width in (0, -1, 9, float("nan")):
        with pytest.raises(ValueError, match=r"width must be above 0 and at most 8"):
            backbones.build("resnet9", width=width)


def test_images_below_64_pixels_get_the_small_stem() -> None:
    assert [backbones.choose_stem(size) for size in (8, 32, 63, 64, 224)] == ["small"] * 3 + ["imagenet"] * 2
    for size, stem, kernel in ((63, "small", (3, 3)), (64, "imagenet", (7, 7))):
        network = backbones.build("resnet9", image_size=size)
        assert (network.chosen, network.conv1.kernel_size) == ({"stem": stem}, kernel)


def test_without_its_relu_the_network_is_that_of_the_published_benchmarks() -> None:
    torch.manual_seed(0)
    network = backbones.build("resnet18", width=0.25, stem="small", stem_relu=False).eval()
    # lightly's benchmarks assemble their backbones like this: one module after the other, without functions between.
    put_together = torch.nn.Sequential(*network.children(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(images), put_together(images), rtol=1e-4, atol=1e-5)
        usual = backbones.build("resnet18", width=0.25, stem="small").eval()
        usual.load_state_dict(network.state_dict())
        assert (usual(images) - network(images)).abs().max() > 1e-2
    with pytest.raises(ValueError, match=r"stem_relu: only the small stem .* 'imagenet'"):
        backbones.build("resnet18", stem_relu=False)
