"""torchvision's classification networks by name, without their classifiers.

torchvision takes seconds to import. It is imported only when such a network is built.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from manyview_server.configuration.networks.preprocessing import Preprocessing
from manyview_server.learn.backbones.backbone import measured_feature_dim
from manyview_server.learn.backbones.did_you_mean import did_you_mean
from manyview_server.learn.backbones.library import LibraryNetwork

NUM_CLASSES = 1000
UNRESTORABLE = "mnasnet"
"""These networks refuse weights without the version that torch's pickles hold. Safetensors files do not hold it."""
SIZED = {"vit": "image_size", "maxvit": "input_size"}
"""Families that are built for one image size, and the argument by which they take it."""


def build(name: str, image_size: int) -> LibraryNetwork:
    """Build ``torchvision/NAME`` with random weights and without its last layer. It returns the input of that layer.

    Raises:
        ValueError: there is no such network, or it does not take images of that size.
    """
    from torchvision import models

    check_name(name)
    try:
        network = models.get_model(name, weights=None, **_options(name, image_size))
        classifier = _remove_last_layer(network)
        feature_dim = measured_feature_dim(network, image_size)
    except (ValueError, AssertionError) as error:
        raise ValueError(f"torchvision/{name} does not take images of {image_size} x {image_size} pixels") from error
    return LibraryNetwork(network, feature_dim, (classifier,))


def check_name(name: str) -> None:
    """Raise ValueError if torchvision has no such network for classes."""
    from torchvision import models

    known = [known for known in models.list_models(module=models) if not known.startswith(UNRESTORABLE)]
    if name not in known:
        raise ValueError(did_you_mean(f"torchvision/{name}", [f"torchvision/{each}" for each in known]))


def preprocessing(name: str) -> Preprocessing:
    """Return the preparation of images that belongs to torchvision's default weights of that name.

    Raises:
        ValueError: torchvision has no weights for the network.
    """
    from torchvision import models

    check_name(name)
    weights = getattr(models.get_model_weights(name), "DEFAULT", None)
    if weights is None:
        raise ValueError(f"torchvision has no weights for {name!r}, so nobody says how to prepare its images")
    transform = weights.transforms()
    return Preprocessing(
        image_size=transform.crop_size[0],
        resize_size=transform.resize_size[0],
        crop="center",
        interpolation=transform.interpolation.value,
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        source=f"torchvision's {weights}",
    )


def _options(name: str, image_size: int) -> dict[str, Any]:
    family = name.partition("_")[0]
    if family == "maxvit":
        return {SIZED[family]: (image_size, image_size)}
    if family in SIZED:
        return {SIZED[family]: image_size}
    if family in ("inception", "googlenet"):
        return {"aux_logits": False, "init_weights": True}
    return {}


def _remove_last_layer(network: nn.Module) -> str:
    """Remove the layer that maps to the classes, and return its name. Each of these networks defines it last."""
    name, layer = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    assert NUM_CLASSES in (getattr(layer, "out_features", 0), getattr(layer, "out_channels", 0)), name
    network.set_submodule(name, nn.Identity())
    return str(name)
