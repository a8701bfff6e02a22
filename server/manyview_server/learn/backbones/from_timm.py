"""timm's networks by name, without their classifiers.

timm takes seconds to import. It is imported only when such a network is built.
"""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from manyview_server.configuration.networks.preprocessing import Preprocessing
from manyview_server.learn.backbones.backbone import measured_feature_dim
from manyview_server.learn.backbones.did_you_mean import did_you_mean
from manyview_server.learn.backbones.library import LibraryNetwork


def build(name: str, image_size: int) -> LibraryNetwork:
    """Build ``timm/NAME`` with random weights. Its features are pooled as timm does it.

    Raises:
        ValueError: there is no such network, or it does not take images of that size.
    """
    import timm

    check_name(name)
    network, feature_dim = _sized(name, image_size)
    classifier = timm.get_pretrained_cfg_value(name, "classifier") or ()
    return LibraryNetwork(network, feature_dim, (classifier,) if isinstance(classifier, str) else tuple(classifier))


def check_name(name: str) -> None:
    """Raise ValueError if timm has no such network."""
    import timm

    if timm.is_model(name) and "." not in name:
        return
    known = timm.list_models()
    if "." in name and name.partition(".")[0] in known:
        plain, _, tag = name.partition(".")
        raise ValueError(f"timm/{name}: .{tag} names weights, which are not downloaded here; use 'timm/{plain}'")
    raise ValueError(did_you_mean(f"timm/{name}", [f"timm/{each}" for each in known]))


def preprocessing(name: str) -> Preprocessing:
    """Return the preparation of images that the authors of timm's weights of that name used for their evaluation.

    Without a tag, these are the weights that timm takes by default.

    Raises:
        ValueError: timm has no weights for the network, or they need what manyview does not offer.
    """
    import timm

    check_name(name)
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ValueError(f"timm lists no weights for {name!r}, so nobody says how to prepare its images")
    channels, height, width = config.input_size
    if channels != 3 or height != width:
        raise ValueError(f"timm/{name} takes {channels} channels of {width} x {height} pixels, not a square of 3")
    stated: dict[str, Any] = {
        "image_size": height,
        "resize_size": math.floor(height / config.crop_pct),
        "crop": config.crop_mode,
        "interpolation": config.interpolation,
        "mean": tuple(config.mean),
        "std": tuple(config.std),
    }
    return Preprocessing.from_json(stated, f"timm's weights {name}" + (f".{config.tag}" if config.tag else ""))


def _sized(name: str, image_size: int) -> tuple[nn.Module, int]:
    """Return a network that takes images of that size, and its D.

    Networks that are built for one size are first built with timm's option to adapt to the images that come. Their
    weights are then those of timm's default size, and they take views of several sizes. Networks without that option
    are built for `image_size`.
    """
    import timm

    choices: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"img_size": image_size}, {})
    for options in choices:
        try:
            network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **options)
        except (TypeError, ValueError, AssertionError):  # it does not have this option, or not for this size
            continue
        try:
            return network, measured_feature_dim(network, image_size)
        except ValueError:
            if "dynamic_img_size" in options:  # built for this size, it would ignore the last pixels
                break
    pixels, own = f"{image_size} x {image_size} pixels", timm.get_pretrained_cfg_value(name, "input_size")
    raise ValueError(f"timm/{name} does not take images of {pixels}" + (f"; it is made for {own[-1]}" if own else ""))
