"""Changes of views that installed packages add: entry points of the group "manyview.transforms".

Each is a `Transform` under a name, and one more step of every pipeline, after all others: nothing happens there unless
``views.custom.NAME.probability`` says so.

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
from manyview_server.learn.out_of_memory import is_lack_of_memory
from manyview_server.learn.plugins import PluginBroken, PluginError

GROUP = "manyview.transforms"
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
MAX_DRAWS = 256


@dataclass(frozen=True, kw_only=True)
class Transform:
    """What a package registers."""

    settings: type[Any]
    """A settings class (see `schema`) with a docstring, a default for every field, and a `probability` from 0 to 1, by
    default 0."""
    change: Callable[[Tensor, Tensor, Any], Tensor]
    """``change(planes, numbers, settings)`` gives the changed planes.

    `planes` (3, N, o, o) are float32 in [0, 1], of the views that the change applies to, and its own to overwrite;
    `numbers` (N, K) are float64, uniform in [0, 1). A view of the result is to depend on its own planes and numbers
    alone, and on nothing that is drawn elsewhere: then any view can be made again. What leaves [0, 1] is clamped.
    """
    num_draws: int = 0
    """K."""


def settings_classes() -> Mapping[str, type]:
    """The settings class of each transform that can be used, by name."""
    return _SettingsClasses()


def errors() -> list[PluginError]:
    """Why transforms cannot be used. Imports all of them."""
    found: list[PluginError] = []
    for name in plugins.names(GROUP):
        try:
            transform(name)
        except PluginBroken as broken:
            found.append(broken.error)
    return found


def transform(name: str) -> Transform:
    """The transform registered as `name`.

    Raises:
        PluginBroken: there is none, or it cannot be used.
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
        raise PluginBroken(GROUP, name, "its name is to consist of small letters, digits and _, a letter first")
    found = plugins.load_one(GROUP, name)
    if not isinstance(found, Transform):
        raise PluginBroken(GROUP, name, f"it is to be a Transform, and is a {type(found).__name__}")
    try:
        problem = _problem_of(found)
    except Exception as error:
        raise PluginBroken(GROUP, name, f"its settings are wrong ({type(error).__name__})", error) from error
    if problem:
        raise PluginBroken(GROUP, name, problem)
    return found


def changed(name: str, settings: Any, planes: Tensor, numbers: Tensor) -> Tensor:
    """What the transform makes of `planes` (3, N, o, o), which it may overwrite. Waits for the device.

    Raises:
        PluginBroken: it failed, or gave what are no such planes.
    """
    shape = planes.shape
    try:
        result = transform(name).change(planes, numbers, settings)
    except Exception as error:
        if is_lack_of_memory(error):
            raise
        raise PluginBroken(GROUP, name, f"it failed ({type(error).__name__})", error) from error
    if not isinstance(result, Tensor) or result.shape != shape or result.dtype != torch.float32:
        given = f"{result.dtype} {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
        raise PluginBroken(GROUP, name, f"it gave {given} where torch.float32 {tuple(shape)} is due")
    if not result.isfinite().all():
        raise PluginBroken(GROUP, name, "it gave values that are not finite")
    return result.clamp(0, 1)


def _problem_of(found: Transform) -> str:
    """What is wrong with a transform, or nothing."""
    settings = found.settings()
    if not found.settings.__doc__ or not getattr(found.settings, "__dataclass_params__").frozen:  # noqa: B009
        return "its settings are to be a frozen dataclass with a docstring"
    if wrong := configuration.check(settings):
        return f"its defaults are out of bounds: {wrong[0]}"
    probability = configuration.json_schema(found.settings)["properties"].get("probability", {})
    if {key: probability.get(key) for key in ("type", "default", "minimum", "maximum")} != {
        "type": "number",
        "default": 0.0,
        "minimum": 0,
        "maximum": 1,
    }:
        return "its settings are to have a probability, a number from 0 to 1, by default 0"
    if not callable(found.change) or not 0 <= found.num_draws <= MAX_DRAWS:
        return f"its change is to be callable, and num_draws from 0 to {MAX_DRAWS}"
    return ""


class _SettingsClasses(Mapping[str, type]):
    """Imports a plugin when it is asked for."""

    def __getitem__(self, name: str) -> type:
        try:
            return transform(name).settings
        except PluginBroken:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return (name for name in plugins.names(GROUP) if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)
