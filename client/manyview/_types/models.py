"""Methods, backbones and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from manyview._types.words import Crop, Interpolation, WeightsOrigin


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method of training. `config_schema` is a JSON Schema with type, default, bounds and a sentence for each
    field."""

    name: str
    title: str
    paper: str
    config_schema: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network that methods train and that can also embed untrained. `feature_dim` is that at 224 pixels, or 0 if it
    is unknown."""

    name: str
    feature_dim: int
    num_parameters: int


@dataclass(frozen=True, kw_only=True)
class PluginProblem:
    """A plugin that a package on the server registers and that cannot be used."""

    group: str
    name: str
    package: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class Methods:
    """The methods and backbones that a server can train. torchvision/NAME and timm/NAME are backbones, too."""

    methods: tuple[Method, ...]
    backbones: tuple[Backbone, ...]
    plugin_problems: tuple[PluginProblem, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The preparation of an image for a model.

    With the crop "center", the shorter side is resized to `resize_size` pixels, and with "squash" both sides are. Then
    a square of `image_size` pixels is cut from the center, and its channels are scaled to [0, 1] and normalized by
    `mean` and `std`. `source` says where this comes from.
    """

    image_size: int
    resize_size: int
    crop: Crop
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str


@dataclass(frozen=True, kw_only=True)
class Model:
    """A checkpoint or a plain backbone. `projection_dim` is 0 if there is no projection. `feature_dim` is 0 for a
    network of a library that the server has not built yet. `preprocessing` is None if nobody says how to prepare images
    for the network; such a model does not embed. In a list, it is also None for networks of libraries."""

    name: str
    train_job: str
    step: int
    epoch: int
    method: str
    backbone: str
    feature_dim: int
    projection_dim: int
    image_size: int
    create_time: datetime | None
    num_bytes: int
    weights: WeightsOrigin
    preprocessing: Preprocessing | None = None
