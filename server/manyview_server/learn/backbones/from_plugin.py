"""Backbones of installed packages: entry points of the group "manyview.backbones".

Each is a callable that gives a `Backbone`, such as a class. Of what a backbone can be told (`backbones.OPTIONS`) it is
given what it has parameters for, by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from manyview_server.learn import plugins
from manyview_server.learn.backbones.backbone import Backbone, measured_feature_dim
from manyview_server.learn.plugins import PluginBroken

GROUP = "manyview.backbones"


def builder(name: str) -> Callable[..., Any]:
    """The callable that is registered as `name`. Raises PluginBroken."""
    plugin = plugins.load_one(GROUP, name)
    if not callable(plugin):
        raise PluginBroken(GROUP, name, "it is to be a callable that gives a Backbone")
    return plugin


def parameters(name: str) -> tuple[str, ...]:
    """Of the callable that is registered as `name`. Raises PluginBroken."""
    plugin = builder(name)
    try:
        return tuple(inspect.signature(plugin).parameters)
    except (TypeError, ValueError) as error:
        raise PluginBroken(GROUP, name, "it does not tell its parameters", error) from error


def build(name: str, image_size: int, options: dict[str, Any]) -> Backbone:
    """What the callable gives for `options`, if that keeps to the interface at `image_size`.

    Raises:
        ValueError: in the plugin's own words, it does not take such images, or PluginBroken.
    """
    try:
        network = builder(name)(**options)
    except ValueError:
        raise
    except Exception as error:
        raise PluginBroken(GROUP, name, f"building it failed ({type(error).__name__})", error) from error
    if not isinstance(network, Backbone):
        raise PluginBroken(GROUP, name, f"it gave a {type(network).__name__}, and no Backbone")
    try:
        measured = measured_feature_dim(network, image_size)
    except ValueError as error:
        raise ValueError(f"backbone {name!r}: {error}") from error
    stated = getattr(network, "feature_dim", None)
    if stated != measured:
        raise PluginBroken(GROUP, name, f"its feature_dim is {stated}, and it gives {measured} features")
    return network
