"""The methods by name, what they can be told, and one function that builds them.

To add one: a file that reads like its paper, with its settings, and an entry in `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from manyview_server.learn import schema
from manyview_server.learn.methods.method import Feature, Method, StepOutput, Views
from manyview_server.learn.methods.moco import MoCo, MoCoSettings
from manyview_server.learn.methods.simclr import SimCLR, SimCLRSettings
from manyview_server.learn.schedules import Moment
from manyview_server.learn.schema import SettingsError, Violation
from manyview_server.learn.settings import TrainSettings

__all__ = [
    "METHODS",
    "Feature",
    "Method",
    "MethodEntry",
    "Moment",
    "StepOutput",
    "Views",
    "build_method",
    "from_json",
    "resolve",
    "to_json",
]


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """What is known of a method before it is built."""

    title: str
    paper: str
    """Address of the paper."""
    settings: type[TrainSettings]
    build: Callable[[Any], Method]
    """From settled settings of that type."""


METHODS: dict[str, MethodEntry] = {
    "simclr": MethodEntry(
        title="SimCLR", paper="https://arxiv.org/abs/2002.05709", settings=SimCLRSettings, build=SimCLR
    ),
    "moco": MethodEntry(title="MoCo v2", paper="https://arxiv.org/abs/2003.04297", settings=MoCoSettings, build=MoCo),
}


def build_method(settings: TrainSettings, num_images: int) -> Method:
    """The method that `settings` describe, on the CPU, in training mode.

    The weights are a pure function of ``settings.seed``; torch's global generator is left as it was. Convolutions are
    laid out channels_last: a step of ResNet-9 at 32 px takes 2.4 CPU-seconds instead of 3.2 (256 views, float32).

    Args:
        num_images: of the training set; what is left open is chosen by it.

    Raises:
        ValueError: settings of a method that is not known, or that no network can be built from.
    """
    if settings.method not in METHODS:
        raise ValueError(f"unknown method {settings.method!r}; known: {', '.join(METHODS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        method = METHODS[settings.method].build(settings.settled(num_images))
    return method.to(memory_format=torch.channels_last)


def resolve(method: str, overrides: Mapping[str, object]) -> TrainSettings:
    """The settings of `method` with `overrides`, nested as the settings are (JSON values), merged over its defaults.

    Raises:
        SettingsError: with all violations: unknown names (and the nearest known one), wrong types, bounds, rules
            between fields, and fields that would have no effect.
    """
    if method not in METHODS:
        known = ", ".join(map(repr, METHODS))
        raise SettingsError([Violation("method", method, f"is not known; known: {known}")])
    return schema.resolve(METHODS[method].settings(), overrides)


def to_json(settings: TrainSettings) -> dict[str, Any]:
    """Every field as a JSON value, nested; `from_json` gives back an equal instance."""
    return schema.to_json(settings)


def from_json(values: Mapping[str, object]) -> TrainSettings:
    """The settings that `to_json` wrote.

    Raises:
        SettingsError: as `resolve`.
    """
    method = str(values.get("method", ""))
    if method not in METHODS:
        return resolve(method, values)
    return schema.read(METHODS[method].settings(), values)
