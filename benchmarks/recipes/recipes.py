"""The recipes that are compared, and the cells of the search and of the table, in the order in which they are measured.

A recipe that leaves something open has the default of its method, as it was when the cell was measured. Each cell keeps
its complete configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

SEEDS = (0, 1, 2)
SEARCH_S, TABLE_S = 60, 600
"""The CPU seconds of a training in the search and in the table."""
SMALL = {"backbone": "resnet9", "backbone_width": 0.25, "image_size": 64}
LARGE_CROPS = {**SMALL, "views": {"crop": {"scale_min": 0.4}}}
WEAK_COLOR = {"color_jitter": {"strength": 0.25}, "grayscale": {"probability": 0.1}}


@dataclass(frozen=True)
class Recipe:
    """A method, and its configuration."""

    method: str
    config: Mapping[str, Any] = field(default_factory=dict)


RECIPES: dict[str, Recipe] = {
    "moco, resnet18": Recipe("moco", {"backbone": "resnet18", "image_size": 64}),
    "simclr, resnet18": Recipe("simclr", {"backbone": "resnet18", "image_size": 64}),
    "moco": Recipe("moco", SMALL),
    "moco, resnet9 x 0.5": Recipe("moco", {**SMALL, "backbone_width": 0.5}),
    "moco, resnet9": Recipe("moco", {**SMALL, "backbone_width": 1.0}),
    "moco, crops from 0.08": Recipe("moco", {**SMALL, "views": {"crop": {"scale_min": 0.08}}}),
    "moco, temperature 0.1": Recipe("moco", {**SMALL, "temperature": 0.1}),
    "moco, bank of 512": Recipe("moco", {**SMALL, "memory_bank_size": 512}),
    "moco, momentum 0.996": Recipe("moco", {**SMALL, "ema_momentum": 0.996}),
    "moco, twice the learning rate": Recipe("moco", {**SMALL, "optimizer": {"learning_rate": 0.03}}),
    "moco, warm-up": Recipe("moco", {**SMALL, "optimizer": {"warmup_epochs": 2}}),
    "moco, 96 px": Recipe("moco", {**SMALL, "image_size": 96}),
    "simclr": Recipe("simclr", SMALL),
    "vicreg": Recipe("vicreg", SMALL),
    "barlow_twins": Recipe("barlow_twins", SMALL),
    "byol": Recipe("byol", SMALL),
    "dino": Recipe("dino", SMALL),
    "mae, vit_tiny": Recipe("mae", {"backbone": "vit_tiny", "image_size": 64}),
    "simclr, resnet9 x 0.5": Recipe("simclr", {**SMALL, "backbone_width": 0.5}),
    "simclr, 32 px": Recipe("simclr", {**SMALL, "image_size": 32}),
    "simclr, crops from 0.2": Recipe("simclr", {**SMALL, "views": {"crop": {"scale_min": 0.2}}}),
    "simclr, crops from 0.4": Recipe("simclr", {**SMALL, "views": {"crop": {"scale_min": 0.4}}}),
    "simclr, weak color": Recipe("simclr", {**SMALL, "views": WEAK_COLOR}),
    "simclr, strong color": Recipe("simclr", {**SMALL, "views": {"color_jitter": {"strength": 1.0}}}),
    "simclr, batch 128": Recipe("simclr", {**SMALL, "batch_size": 128}),
    "simclr, temperature 0.1": Recipe("simclr", {**SMALL, "temperature": 0.1}),
    "simclr, half the learning rate": Recipe("simclr", {**SMALL, "optimizer": {"learning_rate": 0.0075}}),
    "large crops, batch 64": Recipe("simclr", {**LARGE_CROPS, "batch_size": 64}),
    "simclr, batch 64": Recipe("simclr", {**SMALL, "batch_size": 64}),
    "simclr, resnet9 x 0.5, batch 64": Recipe("simclr", {**SMALL, "backbone_width": 0.5, "batch_size": 64}),
    "simclr, 48 px": Recipe("simclr", {**SMALL, "image_size": 48, "stem": "imagenet"}),
    "simclr, adamw": Recipe("simclr", {**SMALL, "optimizer": {"name": "adamw", "learning_rate": 0.001}}),
    "large crops, weak color": Recipe("simclr", {**SMALL, "views": {"crop": {"scale_min": 0.4}, **WEAK_COLOR}}),
    "crops from 0.7": Recipe("simclr", {**SMALL, "views": {"crop": {"scale_min": 0.7}}}),
}
SEARCH = (
    "simclr",
    "simclr, crops from 0.4",
    "simclr, resnet9 x 0.5",
    "simclr, batch 64",
    "vicreg",
    "simclr, strong color",
    "simclr, resnet9 x 0.5, batch 64",
    "moco",
    "simclr, crops from 0.2",
    "simclr, temperature 0.1",
    "simclr, adamw",
    "simclr, 48 px",
    "byol",
    "simclr, batch 128",
    "simclr, 32 px",
    "moco, resnet18",
    "mae, vit_tiny",
    "barlow_twins",
    "dino",
    "simclr, half the learning rate",
    "moco, resnet9 x 0.5",
    "moco, resnet9",
    "moco, crops from 0.08",
    "moco, temperature 0.1",
    "moco, bank of 512",
    "moco, momentum 0.996",
    "moco, twice the learning rate",
    "moco, warm-up",
    "moco, 96 px",
)
DEFAULTS = {
    "moco": ("moco, resnet9 x 0.5", "moco, resnet18"),
    "simclr": ("simclr, resnet9 x 0.5", "simclr, resnet18"),
}
"""The new default for a few thousand images, and the old one, of each method in the table."""


def search_keys(images: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the keys of the search: one seed of each recipe."""
    for name in SEARCH:
        for kind in images:
            yield {"images": kind, "recipe": name, "cpu_s": SEARCH_S, "seed": SEEDS[0]}


def table_keys(images: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the keys of the table, so that it always holds whole comparisons. With 0 seconds a network is untrained."""
    for method, names in DEFAULTS.items():
        for seed in SEEDS:
            for cpu_s in (0, TABLE_S) if method == "moco" else (TABLE_S,):
                for kind in images:
                    for name in names:
                        yield {"images": kind, "recipe": name, "cpu_s": cpu_s, "seed": seed}
