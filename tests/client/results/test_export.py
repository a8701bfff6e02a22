"""An exported file says how to load it. The code is run here."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from manyview._results.export import loading_code
from manyview_server.learn import backbones


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("resnet9", {"image_size": 64, "backbone_width": 0.25, "stem": "small", "stem_relu": False}),
        ("vit_tiny", {"image_size": 32, "backbone_width": 1, "stem": "auto", "patch_size": 4}),
        ("torchvision/shufflenet_v2_x0_5", {"image_size": 64, "stem_relu": True}),
        ("timm/resnet10t", {}),
    ],
)
def test_the_code_loads_the_exported_network(tmp_path: Path, name: str, config: dict[str, Any]) -> None:
    options = {"width" if key == "backbone_width" else key: value for key, value in config.items()}
    network = backbones.build(name, **options).eval()
    save_file(network.state_dict(), tmp_path / "it's.safetensors")
    names: dict[str, Any] = {}
    exec(loading_code(tmp_path / "it's.safetensors", name, {"method": "moco", **config}), names)
    images = torch.rand(2, 3, config.get("image_size", 224), config.get("image_size", 224))
    with torch.no_grad():
        assert torch.equal(names["network"].eval()(images), network(images))


def test_settings_that_are_the_defaults_are_left_out() -> None:
    code = loading_code(Path("a.safetensors"), "resnet18", {"image_size": 224, "backbone_width": 1, "stem": "imagenet"})
    assert code.splitlines()[2:] == [
        "network = backbones.build('resnet18', stem='imagenet')",
        "backbones.load_weights(network, load_file('a.safetensors'))",
    ]
