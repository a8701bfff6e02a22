from __future__ import annotations

import pytest
import torch

from manyview_server.learn import backbones
from support.learning import forked


@pytest.mark.parametrize("name", backbones.BACKBONES)
def test_what_is_known_of_a_backbone_without_building_it_is_so(name: str) -> None:
    entry = backbones.BACKBONES[name]
    network = backbones.build(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == entry.num_parameters
    with torch.no_grad():
        assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, entry.feature_dim) == (1, network.feature_dim)


@pytest.mark.parametrize(
    "name", ["resnet9", "vit_tiny", "torchvision/shufflenet_v2_x0_5", "timm/mobilenetv3_small_050"]
)
def test_the_seed_decides_the_weights_and_they_are_drawn_anew_for_another(name: str) -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([parameter.flatten() for parameter in backbones.build(name, image_size=64).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize("name", ["resnet9", "vit_tiny", "torchvision/mobilenet_v3_small", "timm/vit_tiny_patch16_224"])
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    network = backbones.build(name, image_size=32)
    features = network(torch.randn(4, 3, 32, 32))
    (features * torch.randn_like(features)).sum().backward()  # a layer norm has sums that do not change
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet19", "did you mean .*'resnet18'"),
        ("vit-tiny", "did you mean 'vit_tiny'"),
        ("zzz", "known: resnet9, resnet18, .*, torchvision/NAME, timm/NAME"),
        ("torchvision/resnet19", "did you mean 'torchvision/resnet18'"),
        ("timm/resnet18x", "did you mean 'timm/resnet18'"),
        ("timm/qqqq", "none of the 1,[0-9]+ known names is similar"),
        (
            "timm/vit_base_patch16_224.mae",
            r"\.mae names weights, which are not downloaded here; .*timm/vit_base_patch16_224'",
        ),
        ("timm/local-dir:/etc", "unknown backbone"),
        ("timm/", "unknown backbone"),
        ("torchvision/fcn_resnet50", "unknown backbone"),
        ("../resnet18", "unknown backbone"),
    ],
)
def test_a_name_that_is_not_known_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=near) as refused:
        backbones.build(name)
    assert repr(name) in str(refused.value) or f"{name}:" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("vit_tiny", {"stem": "small"}),
        ("vit_tiny", {"stem_relu": False}),
        ("resnet9", {"patch_size": 8}),
        ("timm/resnet18", {"width": 0.5}),
        ("torchvision/resnet18", {"stem": "imagenet"}),
    ],
)
def test_an_option_without_effect_is_refused(name: str, option: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(option))} has no effect on backbone '{name}'"):
        backbones.build(name, **option)  # type: ignore[arg-type]


def test_nobody_waits_for_a_library_whose_networks_are_not_wanted() -> None:
    code = (
        "import sys; from manyview_server.learn import backbones; "
        "backbones.build('resnet9'), backbones.build('vit_tiny'); print({'torchvision', 'timm'} & set(sys.modules))"
    )
    done = forked.run(code)
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr
