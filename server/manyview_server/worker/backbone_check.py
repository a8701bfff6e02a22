"""Whether a job's backbone can be what its settings say, before anything that takes long; and what to tell of it."""

from __future__ import annotations

import torch

from manyview_server.learn.backbones import Backbone, measured_feature_dim
from manyview_server.learn.encoder import build_encoder
from manyview_server.learn.settings import TrainSettings
from manyview_server.worker.initial_weights import InitialWeights


def check(settings: TrainSettings, initial: InitialWeights | None) -> None:
    """Build it, put the weights in, and show it each size of view. What is built is let go.

    Raises:
        ValueError: there is no such backbone, it does not take such views, or the weights are of another one.
    """
    sizes = {pipeline.size(settings.image_size) for pipeline in settings.views.pipelines}
    with torch.random.fork_rng(devices=[]):
        backbone = build_encoder(settings).backbone
    for size in sorted(sizes):
        measured_feature_dim(backbone, size)
    if initial:
        initial.put_into(backbone)


def told(name: str, backbone: Backbone) -> str:
    """One line about the network that is trained."""
    num_parameters = sum(parameter.numel() for parameter in backbone.parameters())
    chosen = "".join(f", {field} {value}" for field, value in backbone.chosen.items())
    return f"backbone {name}{chosen}: {backbone.feature_dim} features, {num_parameters:,} parameters"
