"""Transforms of views that installed packages add: entry points of the group "manyview.transforms".

Each entry point is a `Transform` with a name. It becomes one more step of every pipeline, after all built-in steps, and
is applied with the probability ``views.custom.NAME.probability``, by default 0.

Shapes: N views, o pixels on a side, K numbers for each view.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from manyview_server import configuration
from manyview_server.learn import plugins
from manyview_server.learn.out_of_memory import is_out_of_memory
from manyview_server.learn.plugins import PluginBroken, PluginError

GROUP = "manyview.transforms"
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
MAX_DRAWS = 256


@dataclass(frozen=True, kw_only=True)
class Transform:
    """A transform, as a package registers it."""

    settings: type[Any]
    """A settings class (see `configuration`) with a docstring, a default for every field, and a `probability` from 0 to
    1 whose default is 0."""
    change: Callable[[Tensor, Tensor, Any], Tensor]
    """``change(planes, numbers, settings)`` returns the changed planes.

    `planes` (3, N, o, o) are float32 in [0, 1]: the views to which the change applies. It may overwrite them. `numbers`
    (N, K) are float64, uniform in [0, 1). Each view of the result must depend only on its own planes and numbers, and
    on no other random source, so that any view can be made again. Values outside [0, 1] are clamped.
    """
    num_draws: int = 0
    """K, the number of random numbers for each view."""


def settings_classes() -> Mapping[str, type]:
    """Return the settings class of each transform that can be used, by name."""
    return _SettingsClasses()


def errors() -> list[PluginError]:
    """Return an error for each transform that cannot be used. Imports all of them."""
    found: list[PluginError] = []
    for name in plugins.names(GROUP):
        try:
            transform(name)
        except PluginBroken as broken:
            found.append(broken.error)
    return found


def transform(name: str) -> Transform:
    """Return the transform registered as `name`.

    Raises:
        PluginBroken: no such transform is registered, or it cannot be used.
    """
    found = _found(name)
    if isinstance(found, PluginBroken):
        raise found
    return found


@functools.cache
def _found(name: str) -> Transform | PluginBroken:
    try:
        return _loaded(name)
    except PluginBroken as broken:
        return broken


def _loaded(name: str) -> Transform:
    if name not in plugins.names(GROUP):
        raise PluginBroken(GROUP, name, "it is not installed")
    if not NAME.fullmatch(name):
        raise PluginBroken(
            GROUP, name, "its name must start with a small letter and consist of small letters, digits and _"
        )
    found = plugins.load_one(GROUP, name)
    if not isinstance(found, Transform):
        raise PluginBroken(GROUP, name, f"it must be a Transform, not a {type(found).__name__}")
    try:
        problem = _problem_of(found)
    except Exception as error:
        raise PluginBroken(GROUP, name, f"its settings are wrong ({type(error).__name__})", error) from error
    if problem:
        raise PluginBroken(GROUP, name, problem)
    return found


def changed(name: str, settings: Any, planes: Tensor, numbers: Tensor) -> Tensor:
    """Apply the transform to `planes` (3, N, o, o), which it may overwrite. Waits for the device.

    Raises:
        PluginBroken: the transform failed, or returned something else than such planes.
    """
    shape = planes.shape
    try:
        result = transform(name).change(planes, numbers, settings)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise PluginBroken(GROUP, name, f"it failed ({type(error).__name__})", error) from error
    if not isinstance(result, Tensor) or result.shape != shape or result.dtype != torch.float32:
        given = f"{result.dtype} {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
        raise PluginBroken(GROUP, name, f"it returned {given} instead of torch.float32 {tuple(shape)}")
    if not result.isfinite().all():
        raise PluginBroken(GROUP, name, "it returned values that are not finite")
    return result.clamp(0, 1)


def _problem_of(found: Transform) -> str:
    """Return what is wrong with a transform, or an empty string."""
    settings = found.settings()
    if not found.settings.__doc__ or not getattr(found.settings, "__dataclass_params__").frozen:  # noqa: B009
        return "its settings must be a frozen dataclass with a docstring"
    if wrong := configuration.check(settings):
        return f"its defaults are out of bounds: {wrong[0]}"
    probability = configuration.json_schema(found.settings)["properties"].get("probability", {})
    if {key: probability.get(key) for key in ("type", "default", "minimum", "maximum")} != {
        "type": "number",
        "default": 0.0,
        "minimum": 0,
        "maximum": 1,
    }:
        return "its settings must have a probability: a number from 0 to 1 whose default is 0"
    if not callable(found.change) or not 0 <= found.num_draws <= MAX_DRAWS:
        return f"its change must be callable, and its num_draws from 0 to {MAX_DRAWS}"
    return ""


class _SettingsClasses(Mapping[str, type]):
    """The settings classes by name. Looking one up imports its plugin."""

    def __getitem__(self, name: str) -> type:
        try:
            return transform(name).settings
        except PluginBroken:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return (name for name in plugins.names(GROUP) if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)
