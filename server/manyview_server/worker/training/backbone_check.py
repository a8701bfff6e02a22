"""Whether a job's backbone can be what its settings say, before anything that takes long; and what to tell of it."""

from __future__ import annotations

import torch

from manyview_server.learn.backbones import Backbone, measured_feature_dim
from manyview_server.learn.encoder import build_encoder
from manyview_server.learn.settings import TrainSettings
from manyview_server.worker.training.initial_weights import InitialWeights


def check(settings: TrainSettings, initial: InitialWeights | None) -> None:
    """Build it, put the weights in, and show it a view. What is built is let go.

    Raises:
        ValueError: there is no such backbone, it does not take such views, or the weights are of another one.
    """
    with torch.random.fork_rng(devices=[]):
        backbone = build_encoder(settings).backbone
    measured_feature_dim(backbone, settings.image_size)  # smaller views were tried when it was built
    if initial:
        initial.put_into(backbone)


def told(name: str, backbone: Backbone) -> str:
    """One line about the network that is trained."""
    num_parameters = sum(parameter.numel() for parameter in backbone.parameters())
    chosen = "".join(f", {field} {value}" for field, value in backbone.chosen.items())
    return f"backbone {name}{chosen}: {backbone.feature_dim} features, {num_parameters:,} parameters"
