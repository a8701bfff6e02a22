"""Networks by name.

It may import what `learn` may import, and its neighbors `plugins`.

Our own families are in `BACKBONES`. "torchvision/NAME" and "timm/NAME" are the networks of those libraries. Installed
packages add further names, see `from_plugin`.

To add a network, write a file with the network and an entry in `BACKBONES`.

- `backbone`: the interface of a backbone. `resnet`, `vit`: our own networks. `positions`: position embeddings.
- `library`, `from_torchvision`, `from_timm`, `from_plugin`: networks of libraries and of installed packages.
- `token_output`: tokens of a vision transformer as its output.
- `weights`: read and check a file of weights. `did_you_mean`: suggest names for an unknown one.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from manyview_server.configuration.networks.patch_size import choose_patch_size
from manyview_server.configuration.networks.preprocessing import Preprocessing
from manyview_server.learn import plugins
from manyview_server.learn.backbones import from_plugin, from_timm, from_torchvision
from manyview_server.learn.backbones.backbone import Backbone, NoTokens, measured_feature_dim
from manyview_server.learn.backbones.did_you_mean import did_you_mean
from manyview_server.learn.backbones.resnet import STEMS, BasicBlock, Bottleneck, ResNet, Stem, choose_stem
from manyview_server.learn.backbones.token_output import TOKEN_OUTPUTS, TokenOutput
from manyview_server.learn.backbones.vit import VisionTransformer
from manyview_server.learn.backbones.weights import Loaded, WeightsNotFinite, check_finite, load_weights
from manyview_server.learn.plugins import PluginBroken

__all__ = [
    "BACKBONES",
    "LIBRARIES",
    "LIBRARY_NAMES",
    "OPTIONS",
    "PLUGINS",
    "STEMS",
    "TOKEN_OUTPUTS",
    "Backbone",
    "BackboneEntry",
    "Loaded",
    "NoTokens",
    "ResNet",
    "Stem",
    "TokenOutput",
    "VisionTransformer",
    "WeightsNotFinite",
    "accepted_options",
    "build",
    "check_finite",
    "check_library_name",
    "choose_patch_size",
    "choose_stem",
    "library_preprocessing",
    "load_weights",
    "measured_feature_dim",
    "names",
    "names_taking",
]

PLUGINS = from_plugin.GROUP

OPTIONS: Mapping[str, Any] = {
    "image_size": 224,
    "width": 1.0,
    "stem": "auto",
    "stem_relu": True,
    "patch_size": None,
}
"""Keyword arguments that a builder may take, with their defaults. An option that a builder does not take has no
effect."""

LIBRARIES: Mapping[str, Callable[..., Backbone]] = {"torchvision": from_torchvision.build, "timm": from_timm.build}
LIBRARY_CHECKS: Mapping[str, Callable[[str], None]] = {
    "torchvision": from_torchvision.check_name,
    "timm": from_timm.check_name,
}
LIBRARY_PREPROCESSING: Mapping[str, Callable[[str], Preprocessing]] = {
    "torchvision": from_torchvision.preprocessing,
    "timm": from_timm.preprocessing,
}
LIBRARY_NAMES = re.compile(rf"({'|'.join(LIBRARIES)})/[A-Za-z0-9_.-]{{1,100}}")


@dataclass(frozen=True, kw_only=True)
class BackboneEntry:
    """The facts about a backbone that are known without building it."""

    build: Callable[..., Backbone]
    """Builds the network. It takes some of `OPTIONS`."""
    feature_dim: int
    num_parameters: int
    """Both numbers are for 224 pixels and default options."""


BACKBONES: dict[str, BackboneEntry] = {
    # One basic block in each stage, for small images and for CPUs.
    "resnet9": BackboneEntry(
        build=partial(ResNet, BasicBlock, (1, 1, 1, 1)), feature_dim=512, num_parameters=4_905_792
    ),
    "resnet18": BackboneEntry(
        build=partial(ResNet, BasicBlock, (2, 2, 2, 2)), feature_dim=512, num_parameters=11_176_512
    ),
    "resnet34": BackboneEntry(
        build=partial(ResNet, BasicBlock, (3, 4, 6, 3)), feature_dim=512, num_parameters=21_284_672
    ),
    "resnet50": BackboneEntry(
        build=partial(ResNet, Bottleneck, (3, 4, 6, 3)), feature_dim=2048, num_parameters=23_508_032
    ),
    "resnet101": BackboneEntry(
        build=partial(ResNet, Bottleneck, (3, 4, 23, 3)), feature_dim=2048, num_parameters=42_500_160
    ),
    "resnet152": BackboneEntry(
        build=partial(ResNet, Bottleneck, (3, 8, 36, 3)), feature_dim=2048, num_parameters=58_143_808
    ),
    "vit_tiny": BackboneEntry(build=partial(VisionTransformer, 3), feature_dim=192, num_parameters=5_486_592),
    "vit_small": BackboneEntry(build=partial(VisionTransformer, 6), feature_dim=384, num_parameters=21_590_016),
    "vit_base": BackboneEntry(build=partial(VisionTransformer, 12), feature_dim=768, num_parameters=85_647_360),
}


def names() -> tuple[str, ...]:
    """Return our own backbones and those of plugins, whether these can be loaded or not."""
    return (*BACKBONES, *(name for name in plugins.names(PLUGINS) if name not in BACKBONES))


def names_taking(option: str) -> tuple[str, ...]:
    """Return the backbones among `names` on which `option` has an effect. Loads the plugins and skips those that
    fail."""
    taking = []
    for name in names():
        with contextlib.suppress(PluginBroken):
            taking += [name] if option in accepted_options(name) else []
    return tuple(taking)


def build(
    name: str,
    *,
    image_size: int = 224,
    width: float = 1.0,
    stem: Stem | Literal["auto"] = "auto",
    stem_relu: bool = True,
    patch_size: int | None = None,
) -> Backbone:
    """Build the backbone `name`, freshly initialised from torch's global generator.

    Args:
        name: one of `names`, "torchvision/NAME" or "timm/NAME".
        image_size: side, in pixels, of the images that the network is made for.
        width: multiplies the channels, rounded to multiples of 8 in a ResNet and of 64 (one head) in a ViT.
        stem: first layers of a ResNet; "auto" lets `choose_stem` choose.
        stem_relu: whether a ResNet's small stem ends in ReLU.
        patch_size: side of a ViT's patches, in pixels; None lets `choose_patch_size` choose.

    Raises:
        ValueError: an unknown name (the message suggests known ones), an option that is out of range or has no effect
            on this backbone, an image size that it does not take, or a plugin that fails.
    """
    given = {"image_size": image_size, "width": width, "stem": stem, "stem_relu": stem_relu, "patch_size": patch_size}
    accepted = accepted_options(name)
    for option, value in given.items():
        if option not in accepted and option != "image_size" and value != OPTIONS[option]:
            raise ValueError(f"{option} has no effect on backbone {name!r}")
    options = {option: given[option] for option in accepted}
    if name in BACKBONES:
        return BACKBONES[name].build(**options)
    library, _, rest = name.partition("/")
    return LIBRARIES[library](rest, **options) if rest else from_plugin.build(name, image_size, options)


def check_library_name(name: str) -> None:
    """Raise ValueError that suggests known names if ``torchvision/NAME`` or ``timm/NAME`` does not exist. Imports the
    library, which takes seconds."""
    library, _, rest = name.partition("/")
    LIBRARY_CHECKS[library](rest)


def library_preprocessing(name: str) -> Preprocessing:
    """Return how the authors of the weights of ``torchvision/NAME`` or ``timm/NAME`` prepare images. Imports the
    library, which takes seconds.

    Raises:
        ValueError: there is no such network, nobody says so, or manyview does not offer it.
    """
    library, _, rest = name.partition("/")
    return LIBRARY_PREPROCESSING[library](rest)


def accepted_options(name: str) -> tuple[str, ...]:
    """Return the `OPTIONS` that have an effect on the backbone `name`.

    Raises:
        ValueError: there is no backbone of that name, or a plugin cannot be loaded.
    """
    if LIBRARY_NAMES.fullmatch(name):
        return ("image_size",)
    if name not in names():
        raise ValueError(did_you_mean(name, [*names(), *(f"{library}/NAME" for library in LIBRARIES)]))
    if name in BACKBONES:
        parameters = tuple(inspect.signature(BACKBONES[name].build).parameters)
    else:
        parameters = from_plugin.parameters(name)
    return tuple(option for option in OPTIONS if option in parameters)
