"""An exported file says how to load it. The code is run here."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from manyview._results.exports.loading_code import with_manyview, without_manyview
from manyview_server.learn import backbones

DOCS = Path(__file__).parents[4] / "docs/methods.md"


def exported(path: Path, name: str, config: dict[str, Any]) -> torch.nn.Module:
    """Write the weights of a network whose statistics are not the initial ones, and return the network."""
    options = {"width" if key == "backbone_width" else key: value for key, value in config.items()}
    torch.manual_seed(3)
    network = backbones.build(name, **options)
    network(torch.rand(4, 3, config.get("image_size", 224), config.get("image_size", 224)))
    save_file(network.state_dict(), path)
    return network.eval()


@pytest.mark.parametrize(
    ("name", "config", "needs"),
    [
        ("resnet9", {"image_size": 64, "backbone_width": 0.25, "stem": "small", "stem_relu": False}, "torchvision"),
        ("resnet9", {"image_size": 64, "backbone_width": 0.5, "stem": "auto", "stem_relu": True}, "torchvision"),
        ("resnet18", {"image_size": 32, "backbone_width": 1, "stem": "auto", "stem_relu": True}, "torchvision"),
        ("resnet18", {"image_size": 64}, "torchvision"),
        ("resnet50", {"image_size": 64, "backbone_width": 0.25}, "torchvision"),
        ("vit_tiny", {"image_size": 32, "backbone_width": 1, "stem": "auto", "patch_size": 4}, "timm"),
        ("vit_tiny", {"image_size": 64, "backbone_width": 0.67, "patch_size": None}, "timm"),
        ("torchvision/shufflenet_v2_x0_5", {"image_size": 64, "stem_relu": True}, "torchvision"),
        ("torchvision/googlenet", {"image_size": 64}, "torchvision"),
        ("timm/resnet10t", {}, "timm"),
        ("timm/vit_tiny_patch16_224", {"image_size": 64}, "timm"),
    ],
)
def test_both_codes_load_the_exported_network(tmp_path: Path, name: str, config: dict[str, Any], needs: str) -> None:
    path = tmp_path / "it's.safetensors"
    network = exported(path, name, config)
    images = torch.rand(2, 3, config.get("image_size", 224), config.get("image_size", 224))
    for code in (with_manyview, without_manyview):
        text, names = code(path, name, {"method": "moco", **config}), dict[str, Any]()
        assert (code is with_manyview) == ("manyview" in text)
        exec(text, names)
        with torch.no_grad():
            torch.testing.assert_close(names["network"].eval()(images), network(images))
    assert needs in text


def test_settings_that_are_the_defaults_are_left_out() -> None:
    code = with_manyview(
        Path("a.safetensors"), "resnet18", {"image_size": 224, "backbone_width": 1, "stem": "imagenet"}
    )
    assert code.splitlines()[2:] == [
        "network = backbones.build('resnet18', stem='imagenet')",
        "backbones.load_weights(network, load_file('a.safetensors'))",
    ]


@pytest.mark.parametrize("data", [b"", b"weights", b"\xff" * 20, (2).to_bytes(8, "little") + b"{}"])
def test_a_network_of_a_plugin_or_a_file_without_tensors_has_no_code_without_manyview(
    tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    assert without_manyview(path, "resnet18", {}) == ""
    save_file({"weight": torch.zeros(2)}, path)
    assert without_manyview(path, "my_network", {}) == ""


def test_the_page_of_methods_shows_the_code(tmp_path: Path) -> None:
    section = DOCS.read_text().partition("## How to load an exported backbone")[2].partition("\n## ")[0]
    with_, without = re.findall("```python\n(.*?)```", section, re.DOTALL)
    path = tmp_path / "backbone.safetensors"
    config = {"image_size": 64, "backbone_width": 0.25, "stem": "auto", "stem_relu": True}
    exported(path, "resnet9", config)
    for shown, code in ((with_, with_manyview), (without, without_manyview)):
        text = code(path, "resnet9", config).replace(str(path), path.name)
        assert shown.replace('"', "'").replace("\n\n", "\n").strip() == text
