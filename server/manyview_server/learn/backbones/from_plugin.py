"""Backbones of installed packages: entry points of the group "manyview.backbones".

Each is a callable that returns a `Backbone`, such as a class. It is called with those of `backbones.OPTIONS` for which
it has parameters, by name.
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
    """Return the callable that is registered as `name`. Raises PluginBroken."""
    plugin = plugins.load_one(GROUP, name)
    if not callable(plugin):
        raise PluginBroken(GROUP, name, "it must be a callable that returns a Backbone")
    return plugin


def parameters(name: str) -> tuple[str, ...]:
    """Return the names of the parameters of the callable that is registered as `name`. Raises PluginBroken."""
    plugin = builder(name)
    try:
        return tuple(inspect.signature(plugin).parameters)
    except (TypeError, ValueError) as error:
        raise PluginBroken(GROUP, name, "its parameters cannot be inspected", error) from error


def build(name: str, image_size: int, options: dict[str, Any]) -> Backbone:
    """Build the backbone with `options`, and check that it keeps to the interface at `image_size`.

    Raises:
        ValueError: the plugin's own error about its options, an image size that it does not take, or PluginBroken.
    """
    try:
        network = builder(name)(**options)
    except ValueError:
        raise
    except Exception as error:
        raise PluginBroken(GROUP, name, f"building it failed ({type(error).__name__})", error) from error
    if not isinstance(network, Backbone):
        raise PluginBroken(GROUP, name, f"it returned a {type(network).__name__} instead of a Backbone")
    try:
        measured = measured_feature_dim(network, image_size)
    except ValueError as error:
        raise ValueError(f"backbone {name!r}: {error}") from error
    stated = getattr(network, "feature_dim", None)
    if stated != measured:
        raise PluginBroken(GROUP, name, f"its feature_dim is {stated}, but it returns {measured} features")
    return network
