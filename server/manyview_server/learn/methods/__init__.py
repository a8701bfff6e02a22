"""The methods by name, their settings, and one function that builds them.

It may import what `learn` may import, and its neighbors `backbones`, `encoder`, `losses`, `modules`, `optimizers`,
`out_of_memory`, `plugins`, `schedules`, `settings` and `views`.

To add a method, write a file that reads like its paper, with its settings, and add an entry to `METHODS`. An installed
package can add one with an entry point instead: see `from_plugin`.

- `method`: the interface between a method and the trainer. `fields`: settings that several methods share.
- `registration`, `from_plugin`: how a method is registered, by this package or by an installed one.
- `contrastive/`, `distillation/`, `redundancy/`, `clustering/`, `reconstruction/`: the methods, one file each.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any

import torch

from manyview_server import configuration
from manyview_server.configuration import InvalidConfiguration
from manyview_server.configuration.violations import unknown
from manyview_server.learn import plugins
from manyview_server.learn.methods import from_plugin
from manyview_server.learn.methods.clustering.swav import SwAV, SwAVSettings
from manyview_server.learn.methods.contrastive.dcl import DCL, DCLSettings, DCLWSettings
from manyview_server.learn.methods.contrastive.moco import MoCo, MoCoSettings
from manyview_server.learn.methods.contrastive.nnclr import NNCLR, NNCLRSettings
from manyview_server.learn.methods.contrastive.simclr import SimCLR, SimCLRSettings
from manyview_server.learn.methods.distillation.byol import BYOL, BYOLSettings
from manyview_server.learn.methods.distillation.dino import DINO, DINOSettings
from manyview_server.learn.methods.distillation.simsiam import SimSiam, SimSiamSettings
from manyview_server.learn.methods.method import Carry, Feature, Method, StepOutput, Views
from manyview_server.learn.methods.reconstruction.mae import MAE, MAESettings
from manyview_server.learn.methods.reconstruction.simmim import SimMIM, SimMIMSettings
from manyview_server.learn.methods.redundancy.barlow_twins import BarlowTwins, BarlowTwinsSettings
from manyview_server.learn.methods.redundancy.vicreg import VICReg, VICRegSettings
from manyview_server.learn.methods.registration import MethodEntry
from manyview_server.learn.plugins import PluginBroken, PluginError
from manyview_server.learn.schedules import Moment
from manyview_server.learn.settings import TrainSettings

__all__ = [
    "METHODS",
    "Carry",
    "Feature",
    "Method",
    "MethodEntry",
    "Moment",
    "StepOutput",
    "Views",
    "build_method",
    "entry",
    "from_json",
    "name_plugin_in_errors",
    "names",
    "plugin_errors",
    "resolve",
    "to_json",
]


METHODS: dict[str, MethodEntry] = {
    "simclr": MethodEntry(
        title="SimCLR", paper="https://arxiv.org/abs/2002.05709", settings=SimCLRSettings, build=SimCLR
    ),
    "dcl": MethodEntry(title="DCL", paper="https://arxiv.org/abs/2110.06848", settings=DCLSettings, build=DCL),
    "dclw": MethodEntry(title="DCLW", paper="https://arxiv.org/abs/2110.06848", settings=DCLWSettings, build=DCL),
    "moco": MethodEntry(title="MoCo v2", paper="https://arxiv.org/abs/2003.04297", settings=MoCoSettings, build=MoCo),
    "nnclr": MethodEntry(title="NNCLR", paper="https://arxiv.org/abs/2104.14548", settings=NNCLRSettings, build=NNCLR),
    "byol": MethodEntry(title="BYOL", paper="https://arxiv.org/abs/2006.07733", settings=BYOLSettings, build=BYOL),
    "simsiam": MethodEntry(
        title="SimSiam", paper="https://arxiv.org/abs/2011.10566", settings=SimSiamSettings, build=SimSiam
    ),
    "barlow_twins": MethodEntry(
        title="Barlow Twins", paper="https://arxiv.org/abs/2103.03230", settings=BarlowTwinsSettings, build=BarlowTwins
    ),
    "vicreg": MethodEntry(
        title="VICReg", paper="https://arxiv.org/abs/2105.04906", settings=VICRegSettings, build=VICReg
    ),
    "swav": MethodEntry(title="SwAV", paper="https://arxiv.org/abs/2006.09882", settings=SwAVSettings, build=SwAV),
    "dino": MethodEntry(title="DINO", paper="https://arxiv.org/abs/2104.14294", settings=DINOSettings, build=DINO),
    "mae": MethodEntry(title="MAE", paper="https://arxiv.org/abs/2111.06377", settings=MAESettings, build=MAE),
    "simmim": MethodEntry(
        title="SimMIM", paper="https://arxiv.org/abs/2111.09886", settings=SimMIMSettings, build=SimMIM
    ),
}


def names() -> tuple[str, ...]:
    """Return the names of our own methods, then those of plugins that can be used."""
    found: list[str] = []
    for name in plugins.names(from_plugin.GROUP):
        with suppress(PluginBroken):
            entry(name)
            found.append(name)
    return (*METHODS, *(name for name in found if name not in METHODS))


def entry(name: str) -> MethodEntry:
    """Return the entry of the method `name`.

    Raises:
        PluginBroken: it is neither one of ours nor a plugin that can be used.
    """
    return METHODS[name] if name in METHODS else from_plugin.entry(name)


def plugin_errors() -> list[PluginError]:
    """Return why methods of plugins cannot be used. This imports all of them."""
    found: list[PluginError] = []
    for name in plugins.names(from_plugin.GROUP):
        try:
            if name in METHODS:
                raise PluginBroken(from_plugin.GROUP, name, "a method of that name already exists")
            entry(name)
        except PluginBroken as broken:
            found.append(broken.error)
    return found


def name_plugin_in_errors(name: str) -> AbstractContextManager[None]:
    """Return a context for a step of the method `name`: an error in a plugin becomes a PluginBroken that names it."""
    return nullcontext() if name in METHODS else from_plugin.name_plugin_in_errors(name)


def build_method(settings: TrainSettings, num_images: int) -> Method:
    """Return the method that `settings` describe, on the CPU, in training mode.

    The weights are a pure function of ``settings.seed``; torch's global generator does not change. Convolutions have
    the layout channels_last: a step of ResNet-9 at 32 px takes 2.4 CPU-seconds instead of 3.2 (256 views, float32).

    Args:
        num_images: the size of the training set, by which settings that were left open are chosen.

    Raises:
        ValueError: the method is not known, or no network can be built with these settings.
        PluginBroken: the method is a plugin that fails.
    """
    build = (
        METHODS[settings.method].build if settings.method in METHODS else partial(from_plugin.build, settings.method)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        method = build(settings.for_num_images(num_images))
    return method.to(memory_format=torch.channels_last)


def resolve(method: str, overrides: Mapping[str, object]) -> TrainSettings:
    """Return the settings of `method` with `overrides`, JSON values, nested as the settings are, over its defaults.

    Raises:
        InvalidConfiguration: with all violations: unknown names (and the nearest known one), wrong types, bounds, rules
            between fields, and fields that would have no effect. The server refuses the same in the same words.
    """
    if method not in names():
        raise InvalidConfiguration([unknown("method", method, names())])
    return configuration.resolve(entry(method).settings, overrides)


def to_json(settings: TrainSettings) -> dict[str, Any]:
    """Return every field as a JSON value, nested; `from_json` gives back an equal instance."""
    return configuration.to_json(settings)


def from_json(values: Mapping[str, object]) -> TrainSettings:
    """Return the settings that `to_json` wrote.

    Raises:
        InvalidConfiguration: as `resolve`.
        PluginBroken: the method was a plugin's, and cannot be used.
    """
    method = str(values.get("method", ""))
    return configuration.read(entry(method).settings, values) if method else resolve(method, values)
