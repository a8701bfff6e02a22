"""Python code that builds `network` and loads an exported file into it.

`with_manyview` needs the server's package, but no server. `without_manyview` needs only the library that has such a
network. It reads the sizes of the network from the header of the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_OPTIONS: dict[str, tuple[str, Any]] = {
    "image_size": ("image_size", 224),
    "width": ("backbone_width", 1),
    "stem": ("stem", "auto"),
    "stem_relu": ("stem_relu", True),
    "patch_size": ("patch_size", None),
}
"""The options of a backbone: the settings of a job that they come from, and their defaults."""
_RESNETS = frozenset({"resnet9", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"})
_VITS = frozenset({"vit_tiny", "vit_small", "vit_base"})
_STAGES = (1, 2, 3, 4)
_HEAD_DIM = 64
_MOST_HEADER_BYTES = 100 << 20

Shapes = Mapping[str, list[int]]


def with_manyview(path: Path, backbone: str, config: Mapping[str, Any]) -> str:
    """Return code for any backbone. `config` is that of the job, or empty for a plain backbone."""
    given = {option: config[setting] for option, (setting, _) in _OPTIONS.items() if setting in config}
    chosen = {option: value for option, value in given.items() if value != _OPTIONS[option][1]}
    options = "".join(f", {option}={value!r}" for option, value in chosen.items())
    return (
        "from manyview_server.learn import backbones\nfrom safetensors.torch import load_file\n"
        f"network = backbones.build({backbone!r}{options})\n"
        f"backbones.load_weights(network, load_file({str(path)!r}))"
    )


def without_manyview(path: Path, backbone: str, config: Mapping[str, Any]) -> str:
    """Return code for a backbone that torchvision or timm has or can be made to have, and "" for others."""
    shapes, weights = _shapes(path), f"load_file({str(path)!r})"
    library, _, name = backbone.rpartition("/")
    if not shapes:
        return ""
    if backbone in _RESNETS:
        return _resnet(shapes, weights, stem_relu=config.get("stem_relu", True))
    if backbone in _VITS:
        return _vit(shapes, weights)
    if library == "torchvision":
        return _of_torchvision(name, weights, int(config.get("image_size", 224)))
    return _of_timm(name, weights, shapes) if library == "timm" else ""


def _shapes(path: Path) -> Shapes:
    """Return the shapes of the tensors in a safetensors file by their names, or none if it is no such file."""
    with path.open("rb") as file:
        num_bytes = int.from_bytes(file.read(8), "little")
        if num_bytes > _MOST_HEADER_BYTES:
            return {}
        try:
            header = json.loads(file.read(num_bytes))
        except ValueError:
            return {}
    return {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}


def _resnet(shapes: Shapes, weights: str, *, stem_relu: bool) -> str:
    block = "Bottleneck" if "layer1.0.conv3.weight" in shapes else "BasicBlock"
    depths = [sum(f"layer{n}.{i}.conv1.weight" in shapes for i in range(len(shapes))) for n in _STAGES]
    channels = [shapes[f"layer{n}.0.conv1.weight"][0] for n in _STAGES]
    stem_channels, _, side, _ = shapes["conv1.weight"]
    lines = [
        "from safetensors.torch import load_file",
        "from torch import nn",
        "from torchvision.models import resnet",
        f"network = resnet.ResNet(resnet.{block}, {depths})",
        "network.fc = nn.Identity()",
    ]
    if side == 3:
        lines.append(f"network.conv1 = nn.Conv2d(3, {stem_channels}, 3, padding=1, bias=False)")
        lines.append("network.maxpool = nn.Identity()")
        lines += [] if stem_relu else ["network.relu = nn.Identity()"]
    elif stem_channels != 64:
        lines.append(f"network.conv1 = nn.Conv2d(3, {stem_channels}, 7, stride=2, padding=3, bias=False)")
    if stem_channels != 64 or channels[0] != 64:
        lines.append(f"network.bn1, network.inplanes = nn.BatchNorm2d({stem_channels}), {stem_channels}")
        lines += [
            f"network.layer{n} = network._make_layer(resnet.{block}, {channels[n - 1]}, {depths[n - 1]}, {min(n, 2)})"
            for n in _STAGES
        ]
    return "\n".join([*lines, f"network.load_state_dict({weights})"])


def _vit(shapes: Shapes, weights: str) -> str:
    patch_size, dim = shapes["patch_embed.proj.weight"][2], shapes["cls_token"][2]
    image_size = patch_size * math.isqrt(shapes["pos_embed"][1] - 1)
    depth = sum(name.endswith(".norm1.weight") for name in shapes)
    return (
        "from safetensors.torch import load_file\nfrom timm.models.vision_transformer import VisionTransformer\n"
        f"network = VisionTransformer(img_size={image_size}, patch_size={patch_size}, embed_dim={dim}, depth={depth}, "
        f"num_heads={dim // _HEAD_DIM}, num_classes=0)\n"
        f"network.load_state_dict({weights})"
    )


def _of_torchvision(name: str, weights: str, image_size: int) -> str:
    family, options = name.partition("_")[0], ""
    if family == "vit" and image_size != 224:
        options = f", image_size={image_size}"
    elif family == "maxvit" and image_size != 224:
        options = f", input_size=({image_size}, {image_size})"
    elif family in ("inception", "googlenet"):
        options = ", aux_logits=False, init_weights=True"
    return (
        "from safetensors.torch import load_file\nfrom torch import nn\nfrom torchvision import models\n"
        f"network = models.get_model({name!r}{options})\n"
        f"classifier = network.load_state_dict({weights}, strict=False).missing_keys[0].rpartition('.')[0]\n"
        "network.set_submodule(classifier, nn.Identity())"
    )


def _of_timm(name: str, weights: str, shapes: Shapes) -> str:
    # A network for one size of images has the weights of timm's own size, and resamples its positions.
    options = ", dynamic_img_size=True" if "pos_embed" in shapes and name.startswith(("vit", "deit")) else ""
    return (
        "import timm\nfrom safetensors.torch import load_file\n"
        f"network = timm.create_model({name!r}, num_classes=0{options})\n"
        f"network.load_state_dict({weights})"
    )
