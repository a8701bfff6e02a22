"""Describe the torch side as JSON: devices, methods with their schemas, backbones, and plugins that are left out."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from manyview_server import configuration
from manyview_server.counted_noun import number_of
from manyview_server.learn import backbones, methods, plugins
from manyview_server.learn.plugins import PluginBroken, PluginError
from manyview_server.learn.views import custom
from manyview_server.worker.training.initial_weights import InitialWeights, check_backbone
from manyview_server.worker.versions import versions


def describe() -> dict[str, Any]:
    """Return the catalogue, which the front reads (see `supervise.catalogue`), as JSON values."""
    errors = [*custom.errors(), *methods.plugin_errors()]
    plugged_in = _backbone_plugins(errors)
    return {
        "versions": versions(),
        "devices": _devices(),
        "methods": [_method(name) for name in methods.names()],
        "backbones": [*(_backbone(name) for name in backbones.BACKBONES), *plugged_in],
        "plugin_errors": [asdict(error) for error in errors],
    }


def describe_backbone(name: str) -> dict[str, Any]:
    """Say whether ``torchvision/NAME`` or ``timm/NAME`` exists, and how the authors of its weights prepare images.

    Returns the problem with the name, or "", and the preparation, or None if nobody says so.
    """
    try:
        backbones.check_library_name(name)
    except ValueError as error:
        return {"problem": str(error), "preprocessing": None}
    try:
        return {"problem": "", "preprocessing": backbones.library_preprocessing(name).to_json()}
    except ValueError:
        return {"problem": "", "preprocessing": None}


def check_weights(settings: dict[str, Any], weights_dir: str) -> dict[str, str]:
    """Say whether a job of these settings can start with its `backbone_weights`: the problem in words, or ""."""
    try:
        wanted = methods.from_json(settings)
        file = wanted.backbone_weights
        check_backbone(wanted, InitialWeights.read(Path(weights_dir), file) if file else None)
    except (ValueError, PluginBroken) as error:
        return {"problem": str(error)}
    return {"problem": ""}


def _devices() -> list[dict[str, Any]]:
    cuda = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    devices = [
        {"name": f"cuda:{index}", "description": device.name, "memory_bytes": device.total_memory}
        for index, device in enumerate(cuda)
    ]
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cores = len(os.sched_getaffinity(0))
    return [
        *devices,
        {
            "name": "cpu",
            "description": f"{platform.machine()}, {number_of(cores, 'core')}",
            "memory_bytes": memory_bytes,
        },
    ]


def _method(name: str) -> dict[str, Any]:
    entry = methods.entry(name)
    schema = configuration.json_schema(entry.settings)
    return {"name": name, "title": entry.title, "paper": entry.paper, "schema": schema}


def _backbone(name: str) -> dict[str, Any]:
    entry = backbones.BACKBONES[name]
    return {"name": name, "feature_dim": entry.feature_dim, "num_parameters": entry.num_parameters}


def _backbone_plugins(errors: list[PluginError]) -> list[dict[str, Any]]:
    """Describe the backbones of plugins. Each is loaded and built once; errors are appended to `errors`."""
    found = []
    for name in plugins.load(backbones.PLUGINS, errors):
        try:
            if name in backbones.BACKBONES:
                raise PluginBroken(backbones.PLUGINS, name, "a backbone of that name already exists")
            network = backbones.build(name)
            num_parameters = sum(parameter.numel() for parameter in network.parameters())
            found.append({"name": name, "feature_dim": network.feature_dim, "num_parameters": num_parameters})
        except PluginBroken as broken:
            errors.append(broken.error)
        except ValueError:  # the plugin does not take images of the default size
            found.append({"name": name, "feature_dim": 0, "num_parameters": 0})
    return found
